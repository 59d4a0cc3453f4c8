"""One run's server: loads the app, runs its rounds on the fleet, stores the model."""

from __future__ import annotations

import contextlib
import logging
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from flwr.app import Context, RecordDict

from edge.logs import event
from edge.training.app_bundle import AppError, FlowerApp, unpack
from edge.training.flower_compat import set_identity
from edge.typed import from_json
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.run.cohorts import Cohort, flower_run_id
from fl_runtime.run.concurrency import THREADS, Concurrency
from fl_runtime.run.cost import Topology
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import app_key, cohorts_key, spec_key
from fl_runtime.run.metric_rules import metric_rules
from fl_runtime.run.mlflow_runs import DEVICES_TAG, app_params
from fl_runtime.run.ports import Clock, ObjectStore, Sleep
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import RunTable
from fl_runtime.server.apps.app_runner import run_app
from fl_runtime.server.apps.app_source import starts_several_times
from fl_runtime.server.apps.server_app import server_app_of
from fl_runtime.server.apps.written_files import working_folder
from fl_runtime.server.cohort_host import CohortHost
from fl_runtime.server.conclusion import Finished, RunOutcome, conclude
from fl_runtime.server.grid.fan_out import CohortBackend
from fl_runtime.server.grid.flower_compat import SERVER_NODE_ID
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.journal import RoundJournal
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.resume import resume_point
from fl_runtime.server.rounds.champion import ChampionComparison, read_champion
from fl_runtime.server.rounds.checkpoints import Checkpoint, CheckpointStore
from fl_runtime.server.rounds.early_checks import EarlyChecks
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.starts import Resumed
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.rounds.strategies import settings_of
from fl_runtime.server.telemetry.log_events import RoundLog
from fl_runtime.server.telemetry.tracking import RunStore, RunTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerResources:
    """What a server works with; made by the entry point."""

    objects: ObjectStore
    runs: RunTable
    host: CohortHost
    store: RunStore
    """Where the run's history goes (MLflow)."""
    signer: Signer
    """Signs commands to devices."""
    eligible: Callable[[RunSpec], set[str]]
    """Names of the devices that meet a run's requirements now."""
    uri: Callable[[str], str]
    """An object's address by its key."""
    kept: KeptUpdates = field(default_factory=KeptUpdates)
    """The updates that cohorts in this process have read."""
    clock: Clock = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Sleep = time.sleep
    concurrency: Concurrency = THREADS
    task: Callable[[], str] = str
    """ARN of this server's ECS task."""


@dataclass(frozen=True, kw_only=True)
class _Serving:
    """A run that this process has become the server of."""

    spec: RunSpec
    cohorts: list[Cohort]
    epoch: int
    app: FlowerApp
    tracker: RunTracker
    objective: Objective
    topology: Topology
    log: RoundLog


class Server:
    """Serves one run. ``stopped`` is set by the entry point when the run is to end."""

    def __init__(self, run: str, resources: ServerResources, stopped: threading.Event) -> None:
        self._run = run
        self._resources = resources
        self._stopped = stopped
        self._checkpoints = CheckpointStore(resources.objects, run)
        self._journal = RoundJournal(resources.objects, resources.runs, self._checkpoints, run)
        self._log: RoundLog | None = None
        self._epoch = 0

    def serve(self) -> RunOutcome:
        """Run the app to its end.

        Raises:
            RunFailed: the run cannot have a model; ``fenced`` when another server serves it now.
        """
        objects, runs = self._resources.objects, self._resources.runs
        spec = decode_spec(objects.get(spec_key(self._run)))
        cohorts = from_json(objects.get(cohorts_key(self._run)), type=list[Cohort])
        devices = sum(len(cohort.members) for cohort in cohorts)
        details = {DEVICES_TAG: str(devices)}
        tracker = RunTracker(
            self._resources.store,
            spec,
            details,
            sleep=self._resources.sleep,
            clock=self._resources.clock,
            now=self._resources.now,
            concurrency=self._resources.concurrency,
        )
        # Flower samples nodes with Python's global random: seeded, a run can be repeated. A resumed
        # run gets the random state of its checkpoint instead.
        random.seed(spec.seed)
        set_identity(flower_run_id(spec.run), SERVER_NODE_ID)
        # From here on an older server of this run cannot commit a round.
        epoch = self._epoch = runs.take_over(spec.run)
        hosted = self._resources.host.serve(spec, cohorts, epoch)
        # The app's modules are imported from this folder, some of them late.
        with tempfile.TemporaryDirectory() as folder, hosted as backend:
            app = _unpack(objects.get(app_key(spec.app)), Path(folder), spec.app)
            spec = _with_rounds(spec, app)
            objective = _objective_of(spec, app)
            topology = Topology(proxies=len(cohorts) if spec.devices_per_proxy else 0)
            self._log = RoundLog(spec, topology, objective)
            serving = _Serving(
                spec=spec,
                cohorts=cohorts,
                epoch=epoch,
                app=app,
                tracker=tracker,
                objective=objective,
                topology=topology,
                log=self._log,
            )
            try:
                return self._run_app(serving, backend)
            finally:
                tracker.complete_devices()  # also of a run that fails

    def is_stopping(self) -> bool:
        """Whether somebody has asked the run to stop."""
        state = self._resources.runs.get(self._run)
        return state is not None and state.state in ("Stopping", "Stopped")

    def beat(self) -> None:
        """Tell the table and the log that the run goes on; called every few seconds."""
        resources = self._resources
        # Before it has taken the run over it has no epoch, and is the newest server.
        resources.runs.update(
            self._run, epoch=self._epoch, task=resources.task(), beat_at=resources.now()
        )
        if self._log is not None:
            self._log.progress()

    def announce_end(self) -> None:
        """Tell proxies by the run's state that nothing more is asked of them.

        One that has just lost its stream does not hear the server's goodbye.
        """
        with contextlib.suppress(ClientError, BotoCoreError):
            # A server that was replaced has nothing to announce: its successor needs the proxies.
            self._resources.runs.update(
                self._run, state="Concluding", unless=("Stopping",), epoch=self._epoch
            )

    def _run_app(self, serving: _Serving, backend: CohortBackend) -> RunOutcome:
        spec, app, resources = serving.spec, serving.app, self._resources
        comparison = ChampionComparison(lambda: read_champion(resources.objects, spec.run))
        loop = self._round_loop(serving, comparison)
        phases = PhaseExecutor(
            spec,
            serving.cohorts,
            backend,
            resources.objects,
            clock=resources.clock,
            now=resources.now,
            signer=resources.signer,
            rules=metric_rules(app.settings),
            concurrency=resources.concurrency,
            kept=resources.kept,
        )
        config = {**app.config, **spec.run_config}
        serving.tracker.log_params(app_params(config))
        context = Context(flower_run_id(spec.run), SERVER_NODE_ID, {}, RecordDict(), config)
        # A run that is being stopped stays so: the heartbeat thread will see it.
        resources.runs.update(spec.run, unless=("Stopping",), epoch=serving.epoch, state="Running")
        with working_folder(app) as files:
            rounds = run_app(server_app_of(app), IoTGrid(phases), context, loop, app.folder)
        finished = Finished(
            spec=spec,
            app=app,
            objective=serving.objective,
            rounds=rounds,
            ended_early=loop.stopping.reason,
            comparison=comparison.result,
            state=context.state,
            files=files,
        )
        outcome = conclude(
            finished,
            resources.objects,
            serving.tracker,
            uri=resources.uri,
            is_stopping=self.is_stopping,
        )
        resources.runs.update(spec.run, mlflow_run_id=outcome.mlflow_run_id)
        return outcome

    def _round_loop(self, serving: _Serving, comparison: ChampionComparison) -> RoundLoop:
        spec, tracker = serving.spec, serving.tracker

        def record(done: RoundRecord, checkpoint: Checkpoint | None) -> None:
            done = msgspec.structs.replace(done, finished_at=self._resources.now())
            # The commit first: what MLflow lacks of a committed round is logged on resume.
            self._journal.commit(done, checkpoint, serving.epoch)
            serving.log.finished(done)
            if checkpoint is None and serving.epoch > 1:
                # An app that runs its own rounds begins anew: its predecessor may have logged this.
                tracker.resume([done])
            else:
                tracker.log_round(done)

        return RoundLoop(
            spec,
            record,
            self._stopped.is_set,
            lambda: self._resume(spec, tracker),
            stopping=StoppingCriteria(spec, serving.topology, serving.objective),
            eligible=(lambda: self._resources.eligible(spec)) if spec.require else None,
            comparison=comparison,
            early=EarlyChecks(
                serving.objective.metric, starts_again=lambda: starts_several_times(serving.app)
            ),
            announce=lambda number, strategy: tracker.log_params(
                _strategy_params(number, strategy)
            ),
            clock=self._resources.clock,
            sleep=self._resources.sleep,
        )

    def _resume(self, spec: RunSpec, tracker: RunTracker) -> Resumed | None:
        resources = self._resources
        resumed = resume_point(
            spec, resources.objects, resources.runs, self._checkpoints, self._journal
        )
        if resumed is not None:
            tracker.resume(resumed.rounds)
        return resumed


def _with_rounds(spec: RunSpec, app: FlowerApp) -> RunSpec:
    """The run's number of rounds as the app's setting, for devices too.

    The command line sets it; a pipeline that was started in Studio gives the number alone. It has
    no effect on an app without such a setting.
    """
    if not spec.num_rounds or not app.rounds_key:
        if spec.num_rounds:
            event(logger, "rounds-not-set", logging.WARNING, run=spec.run, rounds=spec.num_rounds)
        return spec
    config = {**spec.run_config, app.rounds_key: spec.num_rounds}
    return msgspec.structs.replace(spec, run_config=config)


def _strategy_params(number: int, strategy: Any) -> dict[str, Any]:
    """What MLflow keeps of a strategy. Those of later starts are told apart by their number."""
    prefix = "" if number == 1 else f"start-{number}."
    return {f"{prefix}{key}": value for key, value in settings_of(strategy).items()}


def _objective_of(spec: RunSpec, app: FlowerApp) -> Objective:
    """The metric and the goal that the run names, or else the app."""
    metric = spec.metric or str(app.settings.get("metric", ""))
    goal = spec.goal or app.settings.get("goal")
    return Objective(metric, goal if goal in ("minimize", "maximize") else "")


def _unpack(bundle: bytes, folder: Path, digest: str) -> FlowerApp:
    try:
        return unpack(bundle, folder, digest)
    except AppError as error:
        raise RunFailed("app-load", str(error)) from error
