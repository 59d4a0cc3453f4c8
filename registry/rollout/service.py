"""Begins rollouts, records how they end, and begins the queued ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from edge.logs import event
from registry.audit import SYSTEM, AuditTrail
from registry.errors import RegistryError, RolloutBusy
from registry.evidence.prechecks import failed
from registry.identity import is_overridden
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import HELD, Version, VersionName, rollout_tags
from registry.policy import Policy
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.rollout.aws import DynamoStore
from registry.rollout.candidates import Candidates
from registry.rollout.claim import begin, queue_next
from registry.rollout.model import Candidate, Rollout

logger = logging.getLogger(__name__)

Mlflow = Callable[[], MlflowRegistry]
"""Importing MLflow takes seconds, and a rollout's first step does without."""


@dataclass(frozen=True)
class Begun:
    """A rollout that has begun, or why it is queued."""

    rollout: Rollout | None
    waits: str = ""


@dataclass(frozen=True, kw_only=True)
class StepFunctions:
    """Starts the state machine that calls the conductor until a rollout has ended."""

    client: Any
    machine: str
    """ARN."""

    def start(self, rollout: Rollout) -> None:
        """Start the rollout's execution (idempotent: the execution has the rollout's name)."""
        body = msgspec.json.encode({"fleet": rollout.fleet, "number": rollout.number}).decode()
        try:
            self.client.start_execution(stateMachineArn=self.machine, name=rollout.name, input=body)
        except self.client.exceptions.ExecutionAlreadyExists:
            return


class RolloutService:
    """Begins rollouts."""

    def __init__(
        self,
        store: DynamoStore,
        candidates: Candidates,
        audit: AuditTrail,
        machine: StepFunctions,
        *,
        mlflow: Mlflow,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._candidates = candidates
        self._audit = audit
        self._machine = machine
        self._mlflow = mlflow
        self._policy = policy
        self._clock = clock

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
        """Begin a version's rollout. While another is under way it is queued, or with ``queue``
        False RolloutBusy is raised.

        ``override``: failed prechecks were overridden, and that is recorded. Without it they are
        if the approver has recorded it (:mod:`registry.identity`). ``forced``: a return to an
        earlier version, which needs no prechecks and no comparison on the devices.

        Raises:
            RegistryError: Prechecks fail, or the version is not approved in SageMaker.
            ProvenanceMissing: The version, or the one that the fleet runs, has no signed record.
            ProvenanceMismatch: It is not what was linked. That is recorded.

        """
        candidate = self.candidate(version)
        self._check_approved(version)
        way_back = self._way_back(candidate.fleet, required=not forced)
        if not forced:
            override = override or self._passes(version)
        try:
            rollout = begin(
                self._store,
                candidate,
                self._policy().rollout,
                by=by,
                reason=reason,
                now=self._clock(),
                forced=forced,
                way_back=way_back,
            )
        except RolloutBusy as error:
            if not queue:
                raise
            queue_next(self._store, candidate)
            return Begun(None, str(error))
        self._audit.append(
            at=self._clock(),
            who=by,
            what="rollout",
            subject=rollout.model_version,
            why=reason,
            fleet=rollout.fleet,
            number=rollout.number,
            forced=forced,
            override=override,
        )
        self._machine.start(rollout)
        return Begun(rollout)

    def candidate(self, version: Version) -> Candidate:
        """A version as a rollout's candidate. Raises as :meth:`begin` does, and records it when the
        version is not what was linked.
        """
        try:
            return self._candidates.of(version)
        except ProvenanceMismatch as error:
            name, why = version.model_version, str(error)
            earlier = self._audit.last([name], ["refused", "linked"])
            # Approval events may come twice.
            if earlier is None or (earlier.what, earlier.why) != ("refused", why):
                self._audit.append(
                    at=self._clock(), who=SYSTEM, what="refused", subject=name, why=why
                )
            raise

    def begin_next(self, fleet: str) -> None:
        """Begin the queued version of a fleet that is free."""
        current = self._store.current(fleet)
        if not current.next or current.under_way:
            return
        self._store.replace(current, msgspec.structs.replace(current, next=""))
        version = self._mlflow().get(*VersionName.parse(current.next))
        if version is None or version.approval != "Approved":
            return
        try:
            # Its prechecks passed, or were overridden, before it was queued.
            self.begin(version, by=SYSTEM, reason="it waited for its turn", override=True)
        except RegistryError as error:
            event(logger, "next-not-begun", fleet=fleet, version=current.next, reason=str(error))

    def resume(self, rollout: Rollout) -> None:
        """Start the state machine of a rollout that was changed by hand (idempotent)."""
        self._machine.start(rollout)

    def _check_approved(self, version: Version) -> None:
        approval = self._candidates.approval(version)
        if approval != "Approved":
            raise RegistryError(
                f"{version.model_version} is {approval} in SageMaker: only an approved version "
                "goes to devices."
            )

    def _way_back(self, fleet: str, *, required: bool) -> Candidate | None:
        """What a rollback would return to, verified; None without any, or if it is not what was
        linked and not ``required``: then ProvenanceMissing or ProvenanceMismatch is raised.
        """
        running = self._store.current(fleet).candidate
        if running is None:
            return None
        try:
            self._candidates.verify(running)
        except (ProvenanceMissing, ProvenanceMismatch) as error:
            if not required:
                return None
            raise type(error)(
                f"Fleet {fleet} runs {running.model_version}, to which a rollback would return. "
                f"{error}"
            ) from error
        return running

    def _passes(self, version: Version) -> bool:
        """Whether failed prechecks were overridden; False where none fails. Raises RegistryError
        where some fail, and holds the version.
        """
        wrong = failed(self._candidates.checks(version))
        if not wrong:
            return False
        approver = self._candidates.approver(version)
        if is_overridden(self._audit, self._policy().prechecks, version, approver):
            return True
        self._hold(version, wrong)
        raise RegistryError(f"{version.model_version} is held back: {wrong}.")

    def _hold(self, version: Version, wrong: str) -> None:
        """Record once that prechecks hold a version back: approval events may come twice."""
        if version.rollout_state == HELD:
            return
        self._audit.append(
            at=self._clock(), who=SYSTEM, what="held", subject=version.model_version, why=wrong
        )
        tags = rollout_tags(HELD, wrong)
        self._mlflow().set_tags(version.name, version.version, tags)


@dataclass(frozen=True)
class Outcomes:
    """The conductor's view of the registries: which versions to stop, and how rollouts ended."""

    mlflow: Mlflow
    audit: AuditTrail
    clock: Callable[[], float]

    def unwanted(self, rollout: Rollout) -> str:
        """Why a rollout's version must not reach more devices; empty when it may."""
        version = self.mlflow().get(*VersionName.parse(rollout.model_version))
        if version is not None and version.approval not in ("Rejected", "Deleted"):
            return ""
        what = version.approval.lower() if version is not None else "deleted"
        return f"{rollout.model_version} was {what} while it was on its way"

    def record(self, rollout: Rollout) -> None:
        """Write a rollout's end into MLflow and the audit trail. After a success its version is
        champion.
        """
        name = VersionName.parse(rollout.model_version)
        if rollout.state == "Succeeded":
            self.mlflow().set_champion(*name)
            event(
                logger, "promoted", model=name.model, version=name.number, devices=rollout.switched
            )
        else:
            event(
                logger,
                "turned-back",
                logging.WARNING,
                model=name.model,
                version=name.number,
                devices=len(rollout.failures),
                reason=rollout.why,
            )
        said = f"{rollout.state}: {rollout.why}" if rollout.why else rollout.state
        self.audit.append(
            at=self.clock(),
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
        self.mlflow().set_tags(*name, rollout_tags(rollout.state, rollout.why))
