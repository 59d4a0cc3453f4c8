"""What is known of a version before it goes to a fleet: its evidence, prechecks and weights."""

from __future__ import annotations

from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.scoring import goal_of
from fl_runtime.run.spec import RunSpec, decode_spec
from registry.errors import RegistryError
from registry.evidence.collect import read_evidence
from registry.evidence.model import Evidence
from registry.evidence.prechecks import Check, check
from registry.model_version import Version
from registry.policy import policy_in_force
from registry.rollout.model import Candidate
from registry.sagemaker_registry import SageMakerRegistry

WEIGHTS = "model.safetensors"


class Candidates:
    """Reads what a version's run has left in S3."""

    def __init__(self, objects: S3Objects, sagemaker: SageMakerRegistry) -> None:
        self._objects = objects
        self._sagemaker = sagemaker
        self._evidence: dict[str, Evidence | None] = {}

    def evidence(self, version: Version) -> Evidence | None:
        """A version's evidence; None for one that was registered without."""
        # It never changes, so one read is enough for checks, candidates and cards.
        if version.run not in self._evidence:
            self._evidence[version.run] = read_evidence(self._objects, _run_of(version))
        return self._evidence[version.run]

    def checks(self, version: Version) -> list[Check]:
        """A version's prechecks under the policy in force; one failed check when it has no
        evidence.
        """
        evidence = self.evidence(version)
        if evidence is None:
            message = "the version was registered without an evidence pack"
            return [Check(name="evidence", passed=False, message=message)]
        return check(evidence, policy_in_force(self._objects).prechecks)

    def of(self, version: Version) -> Candidate:
        """A version as a rollout's candidate. Raises RegistryError when its run or its package is
        gone.
        """
        spec, package = self._spec(version), self._sagemaker.get(version.model_package_arn)
        metric = package.metric or spec.metric
        # The evidence has the goal that the app states itself, if it does.
        evidence = self.evidence(version)
        goal = evidence.goal if evidence is not None else spec.goal or goal_of(metric)
        key = model_key(version.run, WEIGHTS)
        return Candidate(
            fleet=spec.fleet,
            model_version=version.model_version,
            digest=version.model_digest,
            size=self._objects.size(key),
            app=spec.app,
            metric=metric,
            goal=goal,
            key=key,
        )

    def _spec(self, version: Version) -> RunSpec:
        try:
            return decode_spec(self._objects.get(spec_key(_run_of(version))))
        except ObjectMissing as error:
            raise RegistryError(
                f"The run that made {version.model_version} is gone: {error}. "
                "If a tag was changed, `mledgeops reconcile` repairs it."
            ) from error


def _run_of(version: Version) -> str:
    try:
        return check_name("run", version.run)
    except ProtocolError as error:
        said = str(error).rstrip(".")
        raise RegistryError(
            f"{version.model_version} does not say which run made it ({said}): "
            "`mledgeops reconcile` repairs it."
        ) from error
