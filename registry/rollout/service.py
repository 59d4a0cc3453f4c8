"""Wires the registry's rollout to AWS, for the functions and the commands."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.names import check_name
from fl_runtime.run.aws import S3Objects, client, fresh_seconds, setting
from fl_runtime.run.devices import DeviceStatus, DeviceTable
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.scoring import goal_of
from fl_runtime.run.signing import kms_signer
from fl_runtime.run.spec import RunSpec, decode_spec
from registry.audit import AuditTrail, S3Trail
from registry.evidence.collect import read_evidence
from registry.evidence.model import Evidence
from registry.evidence.prechecks import Check, check, failed
from registry.mlflow_registry import AUDIT_TAG, ROLLOUT_TAG, MlflowRegistry, Version
from registry.policy import Policy
from registry.rollout.aws import DynamoStore, HeartbeatFleet, IotJobs, presigned
from registry.rollout.conductor import (
    Candidate,
    Conductor,
    Rollout,
    RolloutBusy,
    begin,
    wait_for_turn,
)
from registry.sagemaker_registry import METRIC, RegistryError, SageMakerRegistry

if TYPE_CHECKING:
    from registry.linking import Linking

logger = logging.getLogger(__name__)

POLICY_KEY = "policy/policy.json"
SYSTEM = "mledgeops"
"""Who did what no person did."""


@dataclass(frozen=True)
class Begun:
    """A rollout that began, or one that waits for its turn."""

    rollout: Rollout | None
    waits: str = ""


def policy_in_force(objects: ObjectStore) -> Policy:
    """The policy that was set, else the defaults."""
    try:
        return msgspec.json.decode(objects.get(POLICY_KEY), type=Policy)
    except ObjectMissing:
        return Policy()


class Rollouts:
    """Begins rollouts and moves them on. Names come from the environment, which functions and
    commands have alike.
    """

    def __init__(self) -> None:
        self.sagemaker = SageMakerRegistry(client("sagemaker"))
        self._region = os.environ.get("AWS_REGION") or os.environ["AWS_DEFAULT_REGION"]
        self._bucket = setting("MLEDGEOPS_BUCKET")
        self._objects = S3Objects(client("s3"), self._bucket)
        self._evidence: dict[str, Evidence | None] = {}
        self._dynamodb = client("dynamodb")
        self._steps = client("stepfunctions")
        self._machine = setting("MLEDGEOPS_ROLLOUT_MACHINE")
        self.store = DynamoStore(self._dynamodb, setting("MLEDGEOPS_ROLLOUTS_TABLE"))
        self.audit = AuditTrail(S3Trail(client("s3"), self._bucket))

    @functools.cached_property
    def mlflow(self) -> MlflowRegistry:
        """Made when it is first needed: importing MLflow takes seconds, and a rollout's first step
        does without.
        """
        return MlflowRegistry()

    def policy(self) -> Policy:
        """The policy in force."""
        return policy_in_force(self._objects)

    def set_policy(self, policy: Policy, who: str) -> None:
        """Put a policy in force."""
        self._objects.put(POLICY_KEY, msgspec.json.encode(policy))
        self.audit.append(
            at=time.time(),
            who=who,
            what="policy",
            subject="policy",
            why="",
            policy=msgspec.to_builtins(policy),
        )

    def evidence(self, version: Version) -> Evidence | None:
        """A version's evidence pack; None for one that was registered without."""
        # it never changes, and checks, candidates and cards all ask for it
        if version.run not in self._evidence:
            self._evidence[version.run] = read_evidence(self._objects, _run_of(version))
        return self._evidence[version.run]

    def checks(self, version: Version) -> list[Check]:
        """The pre-checks of a version by the policy in force now; one that fails when there is no
        evidence.
        """
        evidence = self.evidence(version)
        if evidence is None:
            return [
                Check(
                    name="evidence",
                    passed=False,
                    message="the version was registered without an evidence pack",
                )
            ]
        return check(evidence, self.policy().gates)

    def linking(self) -> Linking:
        """What links packages, by the policy in force now."""
        from registry.linking import Linking  # it draws charts, which no rollout does

        return Linking(
            mlflow=self.mlflow,
            sagemaker=self.sagemaker,
            objects=self._objects,
            heartbeats=self.beats,
            policy=self.policy(),
        )

    def candidate(self, version: Version) -> Candidate:
        """What a rollout needs to know of a version."""
        spec = self.spec(version)
        package = self.sagemaker.get(version.model_package_arn)
        metric = package.metadata.get(METRIC, spec.metric)
        evidence = self.evidence(version)  # an app may say itself which way its metric is better
        goal = evidence.goal if evidence is not None else spec.goal or goal_of(metric)
        key = model_key(version.run, "model.safetensors")
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

    def spec(self, version: Version) -> RunSpec:
        """The run that made a version; raises RegistryError when the version does not say it, or S3
        has it no longer.
        """
        try:
            return decode_spec(self._objects.get(spec_key(_run_of(version))))
        except ObjectMissing as error:
            name = version.model_version
            raise RegistryError(
                f"What {name} was made from is gone: {error}. Where a tag was changed, `mledgeops reconcile` mends it."
            ) from error

    def begin(
        self,
        version: Version,
        *,
        by: str,
        reason: str,
        forced: bool = False,
        queue: bool = True,
        override: bool = False,
    ) -> Begun:
        """Begin a rollout and have it conducted. While another is under way: with ``queue`` it goes
        next, else RolloutBusy.

        Raises RegistryError where pre-checks fail, unless a person has decided otherwise
        (``override``) or it is a way back (``forced``).
        """
        if not forced and not override and (wrong := failed(self.checks(version))):
            if not version.rollout.startswith("Held"):  # the event of an approval may come twice
                head = self.audit.append(
                    at=time.time(),
                    who=SYSTEM,
                    what="held",
                    subject=version.model_version,
                    why=wrong,
                )
                self.mlflow.set_tags(
                    version.name,
                    version.version,
                    {ROLLOUT_TAG: f"Held: {wrong}"[:500], AUDIT_TAG: head},
                )
            raise RegistryError(f"{version.model_version} is held back: {wrong}.")
        candidate = self.candidate(version)
        try:
            rollout = begin(
                self.store,
                candidate,
                self.policy().rollout,
                by=by,
                reason=reason,
                now=time.time(),
                forced=forced,
            )
        except RolloutBusy as error:
            if not queue:
                raise
            wait_for_turn(self.store, candidate)
            return Begun(None, str(error))
        self.audit.append(
            at=time.time(),
            who=by,
            what="rollout",
            subject=rollout.model_version,
            why=reason,
            fleet=rollout.fleet,
            number=rollout.number,
            forced=forced,
            override=override,
        )
        self.conduct(rollout)
        return Begun(rollout)

    def conduct(self, rollout: Rollout) -> None:
        """Start the state machine for a rollout; once, whoever asks how often."""
        body = msgspec.json.encode({"fleet": rollout.fleet, "number": rollout.number}).decode()
        try:
            self._steps.start_execution(
                stateMachineArn=self._machine, name=f"{rollout.fleet}-{rollout.number}", input=body
            )
        except self._steps.exceptions.ExecutionAlreadyExists:
            return

    def beats(self, fleet: str) -> Iterator[DeviceStatus]:
        """The fleet's devices by their last heartbeats."""
        return DeviceTable(self._dynamodb, setting("MLEDGEOPS_DEVICES_TABLE")).fleet(fleet)

    def conductor(self) -> Conductor:
        """What moves rollouts on, in this function's name."""
        account = self._machine.split(":")[4]
        fleet = HeartbeatFleet(self.beats, time.time(), fresh_seconds())
        jobs = IotJobs(client("iot"), self._region, account, setting("MLEDGEOPS_JOB_URLS_ROLE"))
        sign = kms_signer(client("kms"), setting("MLEDGEOPS_MODELS_KEY"))
        prefix = self._machine.rsplit(":", 1)[1].removesuffix("-rollout")
        return Conductor(
            self.store,
            jobs,
            fleet,
            sign,
            presigned(self._bucket, self._region),
            self._ended,
            prefix,
            self._unwanted,
        )

    def catch_up(self, fleet: str, devices: Sequence[str] = ()) -> list[str]:
        """Give devices that came after the last rollout the model that their fleet uses: those
        named, else all that are behind. Returns the jobs.
        """
        conductor, uses = self.conductor(), self.store.current(fleet).candidate
        late = list(devices) or conductor.behind(fleet)
        jobs = conductor.catch_up(fleet, late)
        if jobs and uses is not None:
            event(logger, "catch-up", fleet=fleet, version=uses.model_version, devices=len(late))
            self.audit.append(
                at=time.time(),
                who=SYSTEM,
                what="catch-up",
                subject=uses.model_version,
                why="enrolled later",
                fleet=fleet,
                devices=late,
                jobs=jobs,
            )
        return jobs

    def _unwanted(self, rollout: Rollout) -> str:
        """A version that was rejected or deleted while it was on its way turns back."""
        version = self.mlflow.get(*rollout.model_version.split("/"))
        if version is not None and version.approval not in ("Rejected", "Deleted"):
            return ""
        return f"{rollout.model_version} was {version.approval.lower() if version is not None else 'deleted'} while it was on its way"

    def _ended(self, rollout: Rollout) -> None:
        """The registries learn how it ended: the champion is what the fleet runs."""
        name, _, number = rollout.model_version.partition("/")
        if rollout.state == "Succeeded":
            self.mlflow.set_champion(name, number)
            event(logger, "promoted", model=name, version=number, devices=rollout.switched)
        else:
            event(
                logger,
                "turned-back",
                logging.WARNING,
                model=name,
                version=number,
                devices=len(rollout.failures),
                reason=rollout.why,
            )
        said = rollout.state if not rollout.why else f"{rollout.state}: {rollout.why}"
        head = self.audit.append(
            at=time.time(),
            who=SYSTEM,
            what="rollout-ended",
            subject=rollout.model_version,
            why=said,
            fleet=rollout.fleet,
            number=rollout.number,
            switched=rollout.switched,
            failures=len(rollout.failures),
            waiting=rollout.waiting,
        )
        self.mlflow.set_tags(name, number, {ROLLOUT_TAG: said[:500], AUDIT_TAG: head})

    def next_of(self, fleet: str) -> None:
        """Begin what waits for its turn, if a rollout has just ended."""
        current = self.store.current(fleet)
        if not current.next or current.under_way:
            return
        self.store.replace(current, msgspec.structs.replace(current, next=""))
        version = next((v for v in self.mlflow.versions() if v.model_version == current.next), None)
        if version is None or version.approval != "Approved":
            return
        try:
            # it was let through before it had to wait
            self.begin(version, by=SYSTEM, reason="it waited for its turn", override=True)
        except RegistryError:
            return  # the fleet runs it already


def _run_of(version: Version) -> str:
    try:
        return check_name("run", version.run)
    except ProtocolError as error:
        said = str(error).rstrip(".")
        raise RegistryError(
            f"{version.model_version} does not say which run made it ({said}): `mledgeops reconcile` mends it."
        ) from error
