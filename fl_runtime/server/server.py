"""Entry point of the server task: ``python -m fl_runtime.server``.

Hosts the app's ServerApp on an IoTGrid, stores the model, and answers Step Functions' task token.
Exit code 0 after a success, or when another server has taken over; 1 after a failure. The state
machine hears of both.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from flwr.app import Context, RecordDict

from edge import logs
from edge.training.app_bundle import AppError, FlowerApp, unpack
from edge.training.flower_compat import from_recorddict, set_identity
from fl_runtime.cohort.hub import ProxyHub
from fl_runtime.cohort.mtls import delete_identity, make_identities, publish_identity, secret_name
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.aws import (
    DynamoReplies,
    IotCommands,
    ResourceNames,
    S3Objects,
    client,
    fresh_seconds,
    names_from_environment,
    setting,
)
from fl_runtime.run.cohorts import Cohort, flower_run_id
from fl_runtime.run.cost import Topology
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.eligibility import eligible
from fl_runtime.run.errors import ObjectMissing, RunFailed, SettingMissing
from fl_runtime.run.keys import app_key, cohorts_key, model_key, round_key, spec_key
from fl_runtime.run.mlflow_runs import ARTIFACT_ROOT_VARIABLE, mlflow_client
from fl_runtime.run.records import COMPARISON, Comparison, RoundRecord
from fl_runtime.run.signing import kms_signer
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import TERMINAL_STATES, RunTable
from fl_runtime.server.app import server_app_of
from fl_runtime.server.flower_compat import SERVER_NODE_ID, round_loop, uses_server_fn
from fl_runtime.server.grid.fan_out import CohortBackend
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.legacy_app import run_server_fn
from fl_runtime.server.model.artifact import (
    FinalModel,
    final_model,
    model_metrics,
    model_tar,
)
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.rounds.champion import ChampionComparison, read_champion
from fl_runtime.server.rounds.checkpoints import Checkpoint, CheckpointStore
from fl_runtime.server.rounds.round_loop import FinishedRounds, Resumed, RoundLoop
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.telemetry.log_events import RoundLog
from fl_runtime.server.telemetry.mlflow_store import MlflowStore
from fl_runtime.server.telemetry.tracking import RunTracker

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
OUTPUT_TEXT = 256
NOT_COMPARED = Comparison(champion=None, round=0, devices=[], reason="The app runs its own rounds.")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers Step Functions: the callback's outputs are made of it."""

    run: str
    rounds: int
    participants: int
    metric: str
    value: float
    score: float
    model_digest: str
    model_data: str
    evaluation: str
    mlflow_run_id: str
    mlflow_model_id: str
    ended: str
    """Why the run ended before its last round; ``-`` when it did not."""


class Server:
    """One run's server, wired with its clients."""

    def __init__(self, names: ResourceNames, run: str) -> None:
        self._names = names
        self._run = run
        self._objects = S3Objects(client("s3"), names.bucket)
        self._table = RunTable(client("dynamodb"), names.runs_table)
        self._epoch = 0
        self._log: RoundLog | None = None
        self._checkpoints = CheckpointStore(self._objects, run)
        self.stopped = threading.Event()

    def stopping(self) -> bool:
        """Whether somebody has asked the run to stop."""
        state = self._table.get(self._run)
        return state is not None and state.state in ("Stopping", "Stopped")

    def serve(self) -> Outcome:
        """Run the app to its end; raises RunFailed."""
        spec = decode_spec(self._objects.get(spec_key(self._run)))
        cohorts = msgspec.json.decode(self._objects.get(cohorts_key(self._run)), type=list[Cohort])
        store = MlflowStore(mlflow_client, os.environ.get(ARTIFACT_ROOT_VARIABLE))
        devices = str(sum(len(cohort.members) for cohort in cohorts))
        tracker = RunTracker(store, spec, {"mledgeops.devices": devices})
        random.seed(spec.seed)
        set_identity(flower_run_id(spec.run), SERVER_NODE_ID)
        self._epoch = self._table.take_over(spec.run)
        shape = Topology(proxies=len(cohorts) if spec.devices_per_proxy else 0)
        with tempfile.TemporaryDirectory() as folder, self._backend(spec, cohorts) as backend:
            app = self._app(spec, Path(folder))
            judge, comparing = (
                _judge_of(spec, app),
                ChampionComparison(lambda: read_champion(self._objects, self._run)),
            )
            loop = RoundLoop(
                spec,
                lambda record, checkpoint: self._record(tracker, record, checkpoint),
                self.stopped.is_set,
                lambda: self._resume(spec, tracker),
                stopping=StoppingCriteria(spec, shape, judge),
                eligible=self._ready(spec) if spec.require else None,
                comparison=comparing,
            )
            self._log = RoundLog(spec, shape, judge)
            signer = kms_signer(client("kms"), setting("MLEDGEOPS_COMMANDS_KEY"))
            grid = IoTGrid(
                PhaseExecutor(
                    spec, cohorts, backend, self._objects, clock=time.monotonic, signer=signer
                )
            )
            context = Context(
                flower_run_id(spec.run),
                SERVER_NODE_ID,
                {},
                RecordDict(),
                {**app.config, **spec.run_config},
            )
            self._table.update(spec.run, unless=("Stopping",), state="Running")
            finished = self._run_app(app, grid, context, loop)
            return self._conclude(
                spec, app, finished, loop.stopping.reason, context, tracker, comparing.result
            )

    def _app(self, spec: RunSpec, folder: Path) -> FlowerApp:
        try:
            return unpack(self._objects.get(app_key(spec.app)), folder)
        except AppError as error:
            raise RunFailed("app-load", str(error)) from error

    @contextlib.contextmanager
    def _backend(self, spec: RunSpec, cohorts: list[Cohort]) -> Iterator[CohortBackend]:
        """Cohorts in this process, or proxies over gRPC whose address and certificates are
        published.
        """
        if spec.devices_per_proxy == 0:
            yield CohortRunner(
                IotCommands(client("iot-data")),
                DynamoReplies(client("dynamodb"), self._names.replies_table),
                self._objects,
                clock=time.monotonic,
                sleep=time.sleep,
                stopped=self.stopped.is_set,
            )
            return
        address = os.environ.get("MLEDGEOPS_SERVER_ADDRESS") or own_address()
        server, proxy = make_identities(address)
        secrets = client("secretsmanager")
        publish_identity(secrets, secret_name(spec.run, self._epoch), proxy)
        if self._epoch > 1:  # what a server that was killed could not remove
            delete_identity(secrets, secret_name(spec.run, self._epoch - 1))
        hub = ProxyHub(
            [cohort.cohort for cohort in cohorts], server, host=address, clock=time.monotonic
        )
        self._table.update(spec.run, server=f"{address}:{hub.port}")
        over = False
        try:
            yield hub
            over = True
        except RunFailed as error:
            over = error.code != "fenced"
            raise
        finally:
            # Proxies of a run that another server goes on with must stay.
            hub.close(goodbye=over)
            delete_identity(secrets, secret_name(spec.run, self._epoch))

    def _run_app(
        self, app: FlowerApp, grid: IoTGrid, context: Context, loop: RoundLoop
    ) -> FinishedRounds:
        server_app = server_app_of(app)
        try:
            if uses_server_fn(server_app):
                return run_server_fn(server_app, grid, context, loop)
            with round_loop(IoTGrid, loop):
                server_app(grid, context)
        except (RunFailed, ClientError, BotoCoreError):
            raise
        except Exception as error:  # the app's own code: its failure is the run's reason
            logger.exception("server-app-failed")
            raise RunFailed(
                "server-app", f"The app's ServerApp raised {type(error).__name__}: {error}"
            ) from error
        if not loop.finished.result.arrays:
            raise RunFailed(
                "no-model",
                "The app's ServerApp ended without a strategy's start(), so there is no model.",
            )
        return loop.finished

    def _record(
        self, tracker: RunTracker, record: RoundRecord, checkpoint: Checkpoint | None
    ) -> None:
        """First what the round left, then the one write that makes it count, then MLflow in its own
        time.
        """
        self._objects.put(round_key(self._run, record.round), msgspec.json.encode(record))
        names = self._checkpoints.save(checkpoint) if checkpoint is not None else ""
        if not self._table.commit_round(self._run, self._epoch, record.round, names):
            raise RunFailed(
                "fenced",
                f"Another server took the run over, or it ended, while round {record.round} was under way.",
            )
        if self._log is not None:
            self._log.finished(record)
        tracker.log_round(record)

    def conclude(self) -> None:
        """Say that nothing more is asked of proxies: one that has lost its stream just now will not
        hear goodbye.
        """
        with contextlib.suppress(ClientError, BotoCoreError):
            self._table.update(self._run, state="Concluding", unless=("Stopping",))

    def beat(self) -> None:
        """Called every few seconds while the run lasts."""
        if self._log is not None:
            self._log.beat()

    def _ready(self, spec: RunSpec) -> Callable[[], set[str]]:
        """Reads the devices table: who meets the run's requirements now."""
        devices, fresh = DeviceTable(client("dynamodb"), self._names.devices_table), fresh_seconds()
        return lambda: set(eligible(devices.fleet(spec.fleet), spec, time.time(), fresh))

    def _resume(self, spec: RunSpec, tracker: RunTracker) -> Resumed | None:
        """Where an earlier server of this run got to, if there was one; else where the run got to
        that this one continues.
        """
        state = self._table.get(self._run)
        checkpoint = self._checkpoints.load(state.checkpoint if state is not None else "")
        run = self._run
        if checkpoint is None and spec.resume_from:
            run, checkpoint = spec.resume_from, self._inherited(spec)
        if checkpoint is None:
            return None
        numbers = range(1, checkpoint.round + 1)
        rounds = [
            msgspec.json.decode(self._objects.get(round_key(run, n)), type=RoundRecord)
            for n in numbers
        ]
        if run != self._run:
            for record in rounds:
                self._objects.put(round_key(self._run, record.round), msgspec.json.encode(record))
        tracker.resume(rounds)
        return Resumed(checkpoint, rounds)

    def _inherited(self, spec: RunSpec) -> Checkpoint:
        """The last checkpoint of the run that this one continues; raises RunFailed when it does not
        fit.
        """
        run = spec.resume_from
        try:
            before = decode_spec(self._objects.get(spec_key(run)))
        except ObjectMissing as error:
            raise RunFailed("checkpoint", f"There is no run {run} to go on from.") from error
        if before.app != spec.app:
            other = f"{before.app_name} {before.app[:12]}"
            raise RunFailed(
                "checkpoint",
                f"The run {run} was made by another app ({other}): its checkpoint does not fit.",
            )
        state = self._table.get(run)
        if state is not None and state.state not in TERMINAL_STATES:
            raise RunFailed(
                "checkpoint", f"The run {run} has not ended ({state.state}): stop it first."
            )
        checkpoint = CheckpointStore(self._objects, run).load(
            state.checkpoint if state is not None else ""
        )
        if checkpoint is None:
            raise RunFailed(
                "checkpoint",
                f"The run {run} has no checkpoint that can be read: it finished no round, or ended over a month ago.",
            )
        return checkpoint

    def _conclude(
        self,
        spec: RunSpec,
        app: FlowerApp,
        loop: FinishedRounds,
        reason: str,
        context: Context,
        tracker: RunTracker,
        comparison: Comparison | None,
    ) -> Outcome:
        model, evaluate, participants = self._judge(spec, app, loop)
        files = {
            "model.safetensors": model.weights,
            "model.tar.gz": model_tar(model, spec, app.bundle()),
            "evaluation.json": model_metrics(evaluate, model.metric),
            COMPARISON: msgspec.json.encode(
                msgspec.structs.replace(comparison or NOT_COMPARED, goal=model.goal)
            ),
        }
        for name, data in files.items():
            self._objects.put(model_key(spec.run, name), data)
        for name, table in tables_of(context.state).items():
            self._objects.put(
                model_key(spec.run, f"tables/{name}.json"), msgspec.json.encode(table)
            )
            tracker.log_table(name, table)
        for name in ("evaluation.json", COMPARISON):
            tracker.log_bytes(name, files[name])
        model_id = tracker.log_model(app, model)
        ended = reason[:OUTPUT_TEXT]
        if ended:
            tracker.set_tag("mledgeops.ended_early", ended)
        tracker.flush()
        # MLflow's own start_run, which logging a model needs, has just called the run finished
        if self.stopping():
            tracker.end("Stopped", "The pipeline was stopped.")
            raise RunFailed("stopped", "The run was stopped while its model was being logged.")
        self._table.update(spec.run, mlflow_run_id=tracker.run_id)
        return Outcome(
            run=spec.run,
            rounds=loop.final_round or spec.num_rounds,
            ended=ended or "-",
            participants=participants,
            metric=model.metric,
            value=model.value,
            score=model.score,
            model_digest=model.digest,
            model_data=self._uri("model.tar.gz"),
            evaluation=self._uri("evaluation.json"),
            mlflow_run_id=tracker.run_id,
            mlflow_model_id=model_id.result(),
        )

    def _judge(
        self, spec: RunSpec, app: FlowerApp, loop: FinishedRounds
    ) -> tuple[FinalModel, dict[str, Any], int]:
        """The final weights with the metric they are judged by."""
        result = loop.result
        history = result.evaluate_metrics_clientapp or result.evaluate_metrics_serverapp
        number = loop.final_round or spec.num_rounds
        evaluate = (
            dict(history[max((n for n in history if n <= number), default=max(history))])
            if history
            else {}
        )
        judged = _judge_of(spec, app).value_of(evaluate)
        arrays = from_recorddict(RecordDict({"arrays": result.arrays})).arrays["arrays"]
        last = msgspec.json.decode(self._objects.get(round_key(spec.run, number)), type=RoundRecord)
        return (
            final_model(arrays, judged.metric, judged.goal, judged.value),
            evaluate,
            last.participants,
        )

    def _uri(self, name: str) -> str:
        return f"s3://{self._names.bucket}/{model_key(self._run, name)}"


def tables_of(state: RecordDict) -> dict[str, dict[str, list[Any]]]:
    """Tables that the ServerApp left in ``context.state``: records whose values are lists of one
    length.
    """
    tables = {}
    for name, record in {**state.config_records, **state.metric_records}.items():
        columns = {key: list(value) for key, value in record.items() if isinstance(value, list)}
        if (
            columns
            and len(columns) == len(record)
            and len({len(column) for column in columns.values()}) == 1
        ):
            tables[name] = columns
    return tables


def _judge_of(spec: RunSpec, app: FlowerApp) -> Objective:
    """By the metric and the goal that the run, or else the app, names."""
    goal = spec.goal or app.settings.get("goal")
    return Objective(
        spec.metric or str(app.settings.get("metric", "")),
        goal if goal in ("minimize", "maximize") else "",
    )


def own_address() -> str:
    """This task's private IP, from the ECS metadata endpoint (AWS sets its address in the
    environment).
    """
    import json
    import urllib.request

    with urllib.request.urlopen(os.environ["ECS_CONTAINER_METADATA_URI_V4"], timeout=5) as answer:
        address: str = json.load(answer)["Networks"][0]["IPv4Addresses"][0]
        return address


def keep_alive(
    steps: Any, token: str, server: Server, on_lost: Callable[[], None], ended: threading.Event
) -> None:
    """Send task heartbeats until the end. When Step Functions no longer knows the task, or the run
    is being stopped, it was aborted.
    """
    while True:
        try:
            steps.send_task_heartbeat(taskToken=token)
            server.beat()
            if server.stopping():
                on_lost()
                return
        except (
            steps.exceptions.TaskDoesNotExist,
            steps.exceptions.TaskTimedOut,
            steps.exceptions.InvalidToken,
        ):
            on_lost()
            return
        except (ClientError, BotoCoreError) as error:
            logs.event(logger, "heartbeat-lost", logging.WARNING, reason=str(error))
        if ended.wait(HEARTBEAT_SECONDS):
            return


def main() -> int:
    """Serve one run, as the task's environment says."""
    logs.set_up()
    try:
        names, run, token = (
            names_from_environment(),
            setting("MLEDGEOPS_RUN"),
            setting("MLEDGEOPS_TASK_TOKEN"),
        )
    except SettingMissing as error:
        logger.error("%s", error)
        return 2
    steps, ended, server = client("stepfunctions"), threading.Event(), Server(names, run)

    def aborted() -> None:
        logs.event(
            logger,
            "server-aborted",
            logging.WARNING,
            run=run,
            reason="the state machine no longer waits for this task",
        )
        server.stopped.set()
        # The app may be deep in its own code; nobody waits for it any more.
        threading.Timer(5.0, os._exit, (1,)).start()

    threading.Thread(
        target=keep_alive, args=(steps, token, server, aborted, ended), daemon=True
    ).start()
    try:
        outcome = server.serve()
    except RunFailed as error:
        logs.event(logger, "run-failed", logging.ERROR, run=run, code=error.code, reason=str(error))
        if error.code == "fenced":  # whoever took over answers
            return 0
        server.conclude()
        return _fail(steps, token, "RunFailed", str(error))
    except Exception as error:  # ours or AWS's fault: the state machine may try again
        logger.exception("server-crashed")
        return _fail(steps, token, "ServerCrashed", f"{type(error).__name__}: {error}"[:256])
    finally:
        ended.set()
    server.conclude()
    return _report(
        lambda: steps.send_task_success(
            taskToken=token, output=msgspec.json.encode(outcome).decode()
        ),
        0,
    )


def _fail(steps: Any, token: str, name: str, cause: str) -> int:
    return _report(lambda: steps.send_task_failure(taskToken=token, error=name, cause=cause), 1)


def _report(call: Callable[[], Any], code: int) -> int:
    try:
        call()
    except (ClientError, BotoCoreError):
        logger.exception("answer-lost")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
