"""The kinds of faults. Each acts on a run under way, in a thread of its own, and has put all right
again when it returns.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import psutil

from fl_runtime.run.state import TERMINAL_STATES, RunState, RunTable
from pipelines.chaos.hostile import BEHAVIOURS
from pipelines.chaos.injected import Rule
from pipelines.chaos.links import Weather
from pipelines.chaos.world import HOSTILE, PHASE_SECONDS, World

SERVER, PROXY = "fl_runtime.server", "fl_runtime.proxy"


@dataclass
class Stage:
    """A run that faults act on."""

    world: World
    run: str
    pipeline: str
    table: RunTable
    dice: random.Random
    told: list[str] = field(default_factory=list)
    """What was done, for a person to read."""

    def state(self) -> RunState | None:
        """The run's item."""
        return self.table.get(self.run)

    def serving(self) -> bool:
        """Whether the run has a server that listens, or has had one."""
        state = self.state()
        return state is not None and (bool(state.server) or state.state in TERMINAL_STATES)

    def over(self) -> bool:
        """Whether the run has ended."""
        state = self.state()
        return state is not None and state.state in TERMINAL_STATES

    def tell(self, text: str) -> None:
        """Note what is done."""
        self.told.append(text)

    def task(self, module: str, seconds: float = 8.0, other_than: int = 0) -> psutil.Process | None:
        """One of the run's tasks, when it comes up in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.over():
            found = [
                process
                for process in self.world.tasks(module, self.run)
                if process.pid != other_than
            ]
            if found:
                return self.dice.choice(found)
            time.sleep(0.1)
        return None

    def honest(self) -> int:
        """One of the honest devices."""
        return self.dice.randrange(HOSTILE)

    def while_(self, low: float, high: float) -> float:
        """A time between two."""
        return self.dice.uniform(low, high)


Act = Callable[[Stage], None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault. ``before``: it acts before the run starts, and returns what undoes it."""

    kind: str
    act: Act | None = None
    before: Callable[[World, random.Random], Callable[[], None]] | None = None
    ends: str = "Succeeded"


def _kill(module: str, times: int = 1) -> Act:
    def act(stage: Stage) -> None:
        last = 0
        for _ in range(times):
            task = stage.task(module, other_than=last)
            if task is None:
                return
            time.sleep(stage.while_(0, 1.5))
            stage.tell(f"kill {module.rpartition('.')[2]} {task.pid}")
            last = task.pid
            with contextlib.suppress(psutil.NoSuchProcess):
                task.kill()

    return act


def _pause(find: Callable[[Stage], psutil.Process | None], what: str, longest: float) -> Act:
    def act(stage: Stage) -> None:
        process = find(stage)
        if process is None:
            return
        seconds = stage.while_(0.5, longest)
        stage.tell(f"pause {what} for {seconds:.1f} s")
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(seconds)
            process.resume()

    return act


def _worker(stage: Stage) -> psutil.Process | None:
    """A training process, once there is one."""
    device, deadline = stage.honest(), time.monotonic() + 5
    while time.monotonic() < deadline:
        if workers := stage.world.workers(device):
            return workers[-1]
        time.sleep(0.05)
    return None


def _kill_worker(stage: Stage) -> None:
    worker = _worker(stage)
    if worker is not None:
        stage.tell(f"kill worker {worker.pid}")
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


def _reboot(stage: Stage) -> None:
    device, seconds = stage.honest(), stage.while_(0, 2)
    stage.tell(f"power cut of device {device} for {seconds:.1f} s")
    stage.world.kill(device)
    time.sleep(seconds)
    stage.world.start(device)


def _lost_device(stage: Stage) -> None:
    device = stage.honest()
    stage.tell(f"device {device} is gone until the end")
    stage.world.kill(device)
    _wait_for_end(stage)
    stage.world.start(device)


def _wait_for_end(stage: Stage, seconds: float = 25.0) -> None:
    deadline = time.monotonic() + seconds
    while not stage.over() and time.monotonic() < deadline:
        time.sleep(0.2)


def _weather(link: str, weather: Weather, what: str, low: float, high: float) -> Act:
    def act(stage: Stage) -> None:
        seconds = stage.while_(low, high)
        stage.tell(f"{what} for {seconds:.1f} s")
        with getattr(stage.world, link).bad(weather):
            time.sleep(seconds)

    return act


def _cuts(stage: Stage) -> None:
    for _ in range(4):
        stage.tell("all connections to the broker cut")
        stage.world.broker.drop()
        time.sleep(stage.while_(0.3, 1.0))


def _errors(
    service: str, status: int, code: str, *, share: float, repeat: bool = False, high: float = 4.0
) -> Act:
    def act(stage: Stage) -> None:
        seconds = stage.while_(1, high)
        stage.tell(f"{service} {'repeats' if repeat else code} ({share:.0%}) for {seconds:.1f} s")
        with stage.world.failing(
            Rule(service=service, share=share, status=status, code=code, repeat=repeat)
        ):
            time.sleep(seconds)

    return act


def _mlflow_locked(stage: Stage) -> None:
    seconds = stage.while_(2, 6)
    stage.tell(f"MLflow's store is locked for {seconds:.1f} s")
    store = sqlite3.connect(stage.world.home.root / "mlflow.db", isolation_level=None, timeout=5)
    try:
        store.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        store.execute("ROLLBACK")
    except sqlite3.OperationalError:
        stage.tell("(MLflow was writing, so it was not)")
    finally:
        store.close()


def _disk_full(stage: Stage) -> None:
    """No file of the device's may grow: what a full disk, or a quota, does to it."""
    device, seconds = stage.honest(), stage.while_(1, 5)
    stage.tell(f"disk of device {device} full for {seconds:.1f} s")
    processes = [stage.world.device(device), *stage.world.workers(device)]
    _limit_files(processes, 0)
    time.sleep(seconds)
    _limit_files([stage.world.device(device), *stage.world.workers(device)], resource.RLIM_INFINITY)


def _limit_files(processes: list[psutil.Process], size: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _app_missing(stage: Stage) -> None:
    """Gone after the heartbeat that promised it: the fleet's operator removes an app while a run is
    under way.
    """
    app = stage.world.configs[stage.honest()].apps_dir / stage.world.app.digest()
    away = app.with_name(".away")
    while not stage.serving() and not stage.over():
        time.sleep(0.05)
    stage.tell(f"the app is gone from {app.parent.parent.name}")
    app.rename(away)
    try:
        _wait_for_end(stage)
    finally:
        away.rename(app)


def _skew(world: World, dice: random.Random) -> Callable[[], None]:
    """A device whose clock is an hour off, one way or the other."""
    device, seconds = dice.randrange(HOSTILE), dice.choice((-3600.0, 3600.0))
    world.stop(device)
    world.start(device, seconds)
    return lambda: world.stop(device)


def _behaviour(name: str) -> Callable[[World, random.Random], Callable[[], None]]:
    def before(world: World, _: random.Random) -> Callable[[], None]:
        world.behave(name)
        return lambda: world.behave("honest")

    return before


def _second(module: str) -> Act:
    """Another task for the same work, as a retry that overlaps its predecessor."""

    def act(stage: Stage) -> None:
        first = stage.task(module)
        if first is None:
            return
        with contextlib.suppress(psutil.Error):
            environment = first.environ()
            time.sleep(stage.while_(0, 1.5))
            stage.tell(f"a second {module.rpartition('.')[2]}")
            with (stage.world.home.logs / "second.log").open("ab") as log:
                other = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.local.child", str(os.getpid()), module],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            try:
                other.wait(25)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
                raise AssertionError(f"the second {module} did not end") from None

    return act


def _redelivery(stage: Stage) -> None:
    """SQS delivers at least once."""
    from fl_runtime.run.aws import client

    stage.tell("the callback message comes again, twice")
    message = {
        "token": stage.run.removeprefix("run-"),
        "pipelineExecutionArn": stage.pipeline,
        "status": "Executing",
        "arguments": {
            "app": stage.world.app.digest(),
            "app_name": "steady",
            "fleet": "chaos",
            "num_rounds": 99,
            "min_devices": 1,
        },
    }
    sqs = client("sqs")
    for _ in range(2):
        sqs.send_message(
            QueueUrl=stage.world.cloud.deployment.queue_url,
            MessageBody=msgspec.json.encode(message).decode(),
        )


def _stop(stage: Stage) -> None:
    from fl_runtime.run.aws import client

    time.sleep(stage.while_(0, 4))
    stage.tell("the pipeline is stopped")
    client("sagemaker").stop_pipeline_execution(
        PipelineExecutionArn=stage.pipeline, ClientRequestToken="s" * 32
    )


def _agent(stage: Stage) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return stage.world.device(stage.honest())
    return None


LONGEST_PAUSE = PHASE_SECONDS + 2
ENVIRONMENT = (
    Fault("kill-server", _kill(SERVER)),
    Fault("kill-server-twice", _kill(SERVER, 2)),
    Fault("kill-proxy", _kill(PROXY)),
    Fault("kill-agent", _reboot),
    Fault("kill-worker", _kill_worker),
    Fault("lose-device", _lost_device),
    Fault("pause-server", _pause(lambda stage: stage.task(SERVER), "server", 5.0)),
    Fault("pause-proxy", _pause(lambda stage: stage.task(PROXY), "proxy", LONGEST_PAUSE)),
    Fault("pause-agent", _pause(_agent, "agent", LONGEST_PAUSE)),
    Fault("pause-worker", _pause(_worker, "worker", LONGEST_PAUSE)),
    Fault("second-server", _second(SERVER)),
    Fault("second-proxy", _second(PROXY)),
    Fault("broker-gone", _weather("broker", Weather(refuses=True), "broker gone", 1, 4)),
    Fault("broker-cut", _cuts),
    Fault("broker-slow", _weather("broker", Weather(delay=0.15), "broker's links slow", 2, 6)),
    Fault("s3-gone", _weather("s3", Weather(refuses=True), "S3 gone", 0.5, 3)),
    Fault(
        "s3-cut", _weather("s3", Weather(breaks_after=30_000), "transfers cut after 30 kB", 1, 3)
    ),
    Fault("s3-slow", _weather("s3", Weather(rate=150_000.0), "links throttled to 150 kB/s", 2, 6)),
    Fault("s3-throttled", _errors("s3", 503, "SlowDown", share=0.5)),
    Fault(
        "dynamodb-throttled",
        _errors("dynamodb", 400, "ProvisionedThroughputExceededException", share=0.6),
    ),
    Fault("dynamodb-errors", _errors("dynamodb", 500, "InternalServerError", share=0.6)),
    Fault("iot-throttled", _errors("iot-data", 429, "ThrottlingException", share=0.6)),
    Fault("heartbeats-refused", _errors("sfn", 500, "InternalServerError", share=1.0, high=6.0)),
    Fault("commands-repeated", _errors("iot-data", 0, "", share=1.0, repeat=True, high=8.0)),
    Fault("mlflow-locked", _mlflow_locked),
    Fault("disk-full", _disk_full),
    Fault("app-missing", _app_missing),
    Fault("clock-skew", before=_skew),
    Fault("callback-redelivered", _redelivery),
    Fault("pipeline-stopped", _stop, ends="Stopped"),
)
POISON = tuple(Fault(f"hostile-{name}", before=_behaviour(name)) for name in BEHAVIOURS)
FAULTS = {fault.kind: fault for fault in (*ENVIRONMENT, *POISON)}


def faults_of(seed: int, only: list[str]) -> list[Fault]:
    """The faults of a seed: each kind comes in turn, with up to two others that go with it."""
    dice = random.Random(f"chaos {seed}")  # noqa: S311  # chance, no secret
    if only:
        return [FAULTS[kind] for kind in only]
    chosen = [ENVIRONMENT[seed % len(ENVIRONMENT)]]
    if chosen[0].ends != "Succeeded":
        return chosen
    others = [
        fault
        for fault in ENVIRONMENT
        if fault is not chosen[0]
        and fault.ends == "Succeeded"
        and fault.kind != "kill-server-twice"
    ]
    if dice.random() < 0.4:
        chosen.append(dice.choice(others))
    chosen.append(POISON[seed % len(POISON)])
    return chosen
