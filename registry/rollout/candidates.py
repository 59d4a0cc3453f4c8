"""What is known of a version before it goes to a fleet: its evidence, prechecks and weights.

What a device is told comes from the version's signed record (:mod:`registry.provenance`).
"""

from __future__ import annotations

from collections.abc import Callable

from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key
from registry.errors import RegistryError
from registry.evidence.collect import read_evidence
from registry.evidence.model import Evidence
from registry.evidence.prechecks import Check, check
from registry.model_version import Version
from registry.policy import Policy
from registry.provenance import (
    RESTORE,
    WEIGHTS,
    Provenance,
    ProvenanceMismatch,
    ProvenanceRecords,
)
from registry.rollout.model import Candidate
from registry.sagemaker_registry import SageMakerRegistry


class Candidates:
    """Reads what a version's run has left in S3."""

    def __init__(
        self,
        objects: S3Objects,
        sagemaker: SageMakerRegistry,
        records: ProvenanceRecords,
        policy: Callable[[], Policy],
    ) -> None:
        self._objects = objects
        self._sagemaker = sagemaker
        self._records = records
        self._policy = policy
        self._verified: list[Candidate] = []
        """Candidates whose objects were hashed: one digest is enough for each call."""
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
        return check(evidence, self._policy().prechecks)

    def of(self, version: Version) -> Candidate:
        """A version as a rollout's candidate, by its signed record.

        Raises:
            RegistryError: Its package is gone, or it does not say which run made it.
            ProvenanceMissing: It has no record.
            ProvenanceMismatch: Version, package or objects are not what the record says.

        """
        record = self._records.read(_run_of(version))
        package = self._sagemaker.get(version.model_package_arn)
        linked = (record.model_version, record.model_package_arn)
        if linked != (version.model_version, package.arn):
            raise ProvenanceMismatch(
                f"The run {record.run} made {record.model_version} ({record.model_package_arn}), "
                f"not {version.model_version} ({package.arn}): a tag was changed, and "
                "`mledgeops reconcile` repairs it."
            )
        candidate = self._candidate(record)
        self.verify(candidate)
        return candidate

    def approval(self, version: Version) -> str:
        """The approval of a version's package in SageMaker: MLflow's tag is for display."""
        return self._sagemaker.get(version.model_package_arn).approval

    def approver(self, version: Version) -> str:
        """ARN of the identity that changed the package last, as AWS vouches for it."""
        return self._sagemaker.get(version.model_package_arn).modified_by

    def verify(self, candidate: Candidate) -> None:
        """Hold a stored candidate against its signed record, and its objects as well.

        Raises:
            ProvenanceMissing: It has no record.
            ProvenanceMismatch: Something is not what the record says.

        """
        if candidate in self._verified:
            return
        record = self._records.read(candidate.key.split("/")[1])  # runs/RUN/model/...
        if candidate != self._candidate(record, candidate.size):
            raise ProvenanceMismatch(
                f"What is stored of {candidate.model_version} is not what was linked: its record "
                f"is of {record.model_version}, digest {record.model[:12]}."
            )
        self._records.check(record)
        self._verified.append(candidate)

    def _candidate(self, record: Provenance, size: int | None = None) -> Candidate:
        key = model_key(record.run, WEIGHTS)
        try:
            return Candidate(
                fleet=record.fleet,
                model_version=record.model_version,
                digest=record.model,
                size=self._objects.size(key) if size is None else size,
                app=record.app,
                metric=record.metric,
                goal=record.goal,
                key=key,
            )
        except ObjectMissing as error:
            raise ProvenanceMismatch(f"{error}, and was linked. {RESTORE}") from error


def _run_of(version: Version) -> str:
    try:
        return check_name("run", version.run)
    except ProtocolError as error:
        said = str(error).rstrip(".")
        raise RegistryError(
            f"{version.model_version} does not say which run made it ({said}): "
            "`mledgeops reconcile` repairs it."
        ) from error
