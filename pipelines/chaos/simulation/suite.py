"""Simulates runs, one for each seed, and checks what must hold afterwards."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import logging
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.serverapp.strategy import Strategy

from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import FlowerApp, load_app
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.keys import app_key, champion_key, cohorts_key, spec_key
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunState
from pipelines.chaos.devices.behaviours import BEHAVIOURS
from pipelines.chaos.simulation.checks import SIZE, End, violations
from pipelines.chaos.simulation.cloud import SimulatedCloud
from pipelines.chaos.simulation.devices import FLEET, Machine
from pipelines.chaos.simulation.disk import Disk, watched
from pipelines.chaos.simulation.event_loop import bury
from pipelines.chaos.simulation.scheduler import Scheduler
from pipelines.chaos.simulation.servers import StateMachine
from pipelines.chaos.simulation.weather import Weather, weather_of

APP = Path(__file__).parent.parent / "app"
RUN = "run-sim"
ROUNDS = 3
PHASE_SECONDS = 20.0
CHUNK = 10
"""Seeds that a worker process takes at once."""
LIMIT = 3600.0
"""Virtual seconds after which a run counts as hung: three rounds of three attempts, of two phases
each, by the servers that there may be, take less.
"""


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one seed."""

    seed: int
    weather: str
    status: str
    virtual_seconds: float
    events: int
    trace: str
    """Digest of the history: equal for equal histories."""
    violations: list[str]


def simulate(seed: int) -> Simulated:
    """Simulate the run of a seed."""
    weather, scheduler = weather_of(seed, list(BEHAVIOURS)), Scheduler(seed)
    cloud = SimulatedCloud(scheduler, weather)
    with _quiet(), tempfile.TemporaryDirectory(dir=_memory()) as folder:
        return _simulate(seed, cloud, Path(folder))


def simulate_all(seeds: list[int], report: Callable[[Simulated], None]) -> list[Simulated]:
    """Simulate the seeds, on all cores; each outcome is reported in the order of the seeds."""
    found = []
    # Spawned, not forked: greenlets and threads of this process must not be copied.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for outcome in pool.map(simulate, seeds, chunksize=CHUNK):
            found.append(outcome)
            report(outcome)
    return found


def _simulate(seed: int, cloud: SimulatedCloud, folder: Path) -> Simulated:
    scheduler, weather = cloud.scheduler, cloud.weather
    faults: list[str] = []
    disks: dict[str, Disk] = {}
    trained: list[tuple[str, str]] = []
    machines = [
        _machine(cloud, index, folder, disks, trained, faults) for index in range(weather.devices)
    ]
    _store_run(cloud, seed, [machine.name for machine in machines])
    machine = StateMachine(cloud, RUN, _sign)
    for each in machines:
        scheduler.at(scheduler.rng.uniform(0.0, 3.0), each.boot)
    scheduler.at(2.0, machine.start)
    try:
        with watched(disks):
            scheduler.run(lambda: machine.answer is not None, LIMIT)
            status = machine.answer[0] if machine.answer is not None else "Hung"
            ended = scheduler.now
            # A server that was paused, or replies that are under way, may still do something.
            scheduler.run(lambda: False, scheduler.now + _longest_pause(weather))
    finally:
        for each in machines:
            for loop in each.loops:
                faults += [f"{each.name}: {text}" for text in loop.faults]
                bury(loop)
    end = End(
        answer=machine.answer,
        run=RUN,
        rounds=ROUNDS,
        trained=trained,
        boots={each.name: each.boots for each in machines},
    )
    return Simulated(
        seed=seed,
        weather=weather.text(),
        status=status,
        virtual_seconds=round(ended, 1),
        events=scheduler.events,
        trace=scheduler.digest(),
        violations=[*faults, *cloud.faults, *violations(cloud, end)],
    )


def _longest_pause(weather: Weather) -> float:
    """Seconds that something is paused or away, at most."""
    faults = [*weather.server_faults, *weather.device_faults.values()]
    return max((seconds for _, _, seconds in faults), default=1.0)


def _machine(
    cloud: SimulatedCloud,
    index: int,
    folder: Path,
    disks: dict[str, Disk],
    trained: list[tuple[str, str]],
    faults: list[str],
) -> Machine:
    weather, app = cloud.weather, _app()
    return Machine(
        cloud=cloud,
        name=f"sim-{index}",
        index=index,
        folder=folder,
        disks=disks,
        files={"trust.json": _trust()},
        app=app.folder,
        app_digest=app.digest(),
        trained=trained,
        fault=weather.device_faults.get(index),
        hostile=weather.hostile.get(index, ""),
        skew=weather.skew.get(index, 0.0),
        faults=faults,
    )


def _store_run(cloud: SimulatedCloud, seed: int, devices: list[str]) -> None:
    app = _app()
    size = 0 if cloud.weather.cohorts == 1 else -(-len(devices) // cloud.weather.cohorts)
    spec = RunSpec(
        run=RUN,
        fleet=FLEET,
        app=app.digest(),
        app_name="steady",
        num_rounds=ROUNDS,
        min_devices=2,
        # The server serves all cohorts in its own process, however many there are.
        devices_per_proxy=0,
        metric="loss",
        seed=seed,
        phase_seconds=PHASE_SECONDS,
        quorum=2,
        over_selection=1.0,
    )
    cloud.objects[spec_key(RUN)] = msgspec.json.encode(spec)
    cloud.objects[cohorts_key(RUN)] = msgspec.json.encode(form_cohorts(FLEET, devices, size))
    cloud.objects[app_key(app.digest())] = _bundle()
    cloud.objects[champion_key(RUN)] = b"null"
    cloud.runs[RUN] = RunState(run=RUN, state="Starting")


@functools.cache
def _app() -> FlowerApp:
    """The steady app, with fewer weights: nobody cuts a transfer in its middle here."""
    folder = Path(tempfile.mkdtemp(prefix="mledgeops-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    model = folder / "app" / "steady" / "model.py"
    model.write_text(model.read_text().replace("SIZE = 20_000", f"SIZE = {SIZE}"))
    return load_app(folder / "app")


@functools.cache
def _bundle() -> bytes:
    return _app().bundle()


# One key for all seeds, and signatures that depend on the text alone: a seed must repeat exactly.
_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())


def _sign(text: bytes) -> str:
    signature = _KEY.sign(text, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return base64.b64encode(signature).decode()


@functools.cache
def _trust() -> bytes:
    public = _KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return msgspec.json.encode(TrustedKeys(commands=[base64.b64encode(public).decode()]))


def _memory() -> str | None:
    """A folder in memory, where the system has one: power cuts are simulated, not real."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # a TemporaryDirectory


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without logs, and with Flower as it was."""
    start, level = Strategy.start, logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        Strategy.start = start
