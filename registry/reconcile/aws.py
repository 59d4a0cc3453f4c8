"""Both registries, the fleets and the runs' ends, as :mod:`registry.reconcile.plan` wants them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from edge.training.app_bundle import AppError
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.mlflow_runs import end_run
from fl_runtime.run.state import TERMINAL_STATES, RunTable, TerminalState
from registry.linking import Linking
from registry.mlflow_registry import APPROVAL_TAG, CHECKS_TAG, SYNCED_TAG, Version, origin
from registry.reconcile.plan import FleetState, Repair
from registry.rollout.conductor import OVER
from registry.rollout.service import SYSTEM, Rollouts
from registry.sagemaker_registry import Package, RegistryError


class AwsRegistries:
    """:class:`registry.reconcile.plan.Both`. Reads each side once; MLflow's alias and tags change
    by one call each.
    """

    def __init__(self, rollouts: Rollouts, now: float) -> None:
        self._mlflow = rollouts.mlflow
        self._sagemaker = rollouts.sagemaker
        self._rollouts = rollouts
        self._now = now
        self._conductor = rollouts.conductor()
        self._fleet_of: dict[str, str] = {}
        self.jobs: dict[str, list[str]] = {}
        """Of devices that catch up, by fleet."""

    @functools.cached_property
    def _linking(self) -> Linking:
        return self._rollouts.linking()

    @functools.cached_property
    def _versions(self) -> Sequence[Version]:
        return self._mlflow.versions()

    @functools.cached_property
    def _packages(self) -> Sequence[Package]:
        return self._sagemaker.packages()

    def versions(self) -> Sequence[Version]:
        """MLflow's versions, as they were when this was made."""
        return self._versions

    def packages(self) -> Sequence[Package]:
        """SageMaker's packages, as they were when this was made: a call each."""
        return self._packages

    def fleets(self) -> Mapping[str, FleetState]:
        """By the name of the model that a fleet runs, or is being given."""
        found: dict[str, FleetState] = {}
        for current in self._rollouts.store.fleets():
            rollout = (
                self._rollouts.store.get(current.fleet, current.under_way)
                if current.under_way
                else None
            )
            busy = rollout is not None and rollout.state not in OVER
            name, _, number = (
                current.candidate.model_version if current.candidate else ""
            ).partition("/")
            if name:
                behind = self._conductor.behind(current.fleet) if not busy else []
                found[name] = FleetState(runs=number, busy=busy, behind=tuple(behind))
                self._fleet_of[name] = current.fleet
            if (
                rollout is not None
                and busy
                and rollout.model_version.partition("/")[0] not in found
            ):
                found[rollout.model_version.partition("/")[0]] = FleetState(busy=True)
        return found

    def register(self, package: Package) -> str:
        """As the link step does."""
        number = self._linking.link(package)
        self.give_evidence(package, number)
        return number

    def give_evidence(self, package: Package, number: str) -> None:
        """As the link step does; where the run did not leave what it takes, that is what the
        version says.
        """
        try:
            self._linking.give_evidence(package, number)
        except (ObjectMissing, AppError, msgspec.DecodeError, LookupError, ValueError) as error:
            self._mlflow.set_tags(
                package.group,
                number,
                {CHECKS_TAG: f"no evidence: {type(error).__name__}: {error}"[:500]},
            )

    def name(self, package: Package, version: Version) -> None:
        """Write the version's name into the package, and the package's origin into the version."""
        self._sagemaker.set_version(package.arn, version.name, version.version)
        self._mlflow.set_tags(version.name, version.version, origin(package))

    def set_approval_tag(self, version: Version, approval: str) -> None:
        """The agreement last: a crash between the two is found again."""
        self._mlflow.set_tags(
            version.name, version.version, {APPROVAL_TAG: approval, SYNCED_TAG: approval}
        )

    def decide(self, arn: str, approval: Literal["Approved", "Rejected"], why: str) -> None:
        """SageMaker's event then does the rest."""
        what = "approve" if approval == "Approved" else "reject"
        self._rollouts.audit.append(
            at=self._now, who="(in MLflow)", what=what, subject=arn, why=why
        )
        self._sagemaker.set_approval(arn, approval, f"(in MLflow): {why}")

    def set_champion(self, name: str, number: str) -> None:
        """Move the alias."""
        self._mlflow.set_champion(name, number)

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""
        self._mlflow.drop_champion(name)

    def catch_up(self, name: str, devices: Sequence[str]) -> None:
        """A signed manifest by a job each, as in a rollout."""
        fleet = self._fleet_of[name]
        self.jobs.setdefault(fleet, []).extend(self._rollouts.catch_up(fleet, devices))

    def roll_out(self, version: Version, why: str) -> None:
        """A version that the fleet runs already, or that another's approval event has sent on its
        way, is as good.
        """
        try:
            self._rollouts.begin(version, by=SYSTEM, reason=why)
        except RegistryError:
            return


def runs_left_open(mlflow: Any, runs: RunTable) -> list[tuple[Repair, str, TerminalState, str]]:
    """Runs that have ended and of whose end MLflow was not told: (repair, MLflow run, state,
    reason).
    """
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    open_ = (
        mlflow.search_runs(
            experiments, "attributes.status = 'RUNNING' AND tags.`mledgeops.run_id` != ''"
        )
        if experiments
        else []
    )
    found = []
    for run in open_:
        name = run.data.tags["mledgeops.run_id"]
        state = runs.get(name)
        if state is not None and state.state in TERMINAL_STATES:
            repair = Repair(
                act="set-tag",
                subject=name,
                value=state.state,
                why="the run has ended, and MLflow says RUNNING",
            )
            found.append((repair, run.info.run_id, state.state, state.reason))
    return found


def end_in_mlflow(mlflow: Any, left: list[tuple[Repair, str, TerminalState, str]]) -> None:
    """Tell MLflow."""
    for _, run_id, state, reason in left:
        end_run(mlflow, run_id, state, reason)
