"""All kinds of faults, and the choice that a seed makes among them."""

from __future__ import annotations

import random
from collections.abc import Callable

from pipelines.chaos.accidents.catalogue import ACCIDENTS
from pipelines.chaos.devices.behaviours import BEHAVIOURS, HONEST, SYBILS
from pipelines.chaos.faults import processes, replay, services
from pipelines.chaos.faults.fault import Fault
from pipelines.chaos.injected import InjectedError
from pipelines.chaos.invariants import Attack
from pipelines.chaos.links import LinkCondition
from pipelines.chaos.stage import PROXY, SERVER
from pipelines.chaos.world import ALL, HOSTILE, MORE, PHASE_SECONDS, World
from pipelines.chaos.world import SYBILS as SYBIL_DEVICES

HOSTILE_PREFIX, SYBILS_PREFIX = "hostile-", "sybils-"
LONGEST_PAUSE = PHASE_SECONDS + 2


def _behave(name: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """Set the hostile device's behaviour; undone, it is honest."""

    def before(world: World, _: random.Random) -> Callable[[], None]:
        world.devices.behave(name)
        return lambda: world.devices.behave(HONEST)

    return before


def _league(name: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """Bring three Sybils and an honest device more into the fleet; undone, they are gone."""

    def before(world: World, _: random.Random) -> Callable[[], None]:
        for index in MORE:
            world.devices.start(index)
        world.await_fleet(ALL)
        world.devices.behave(name)
        return lambda: world.devices.behave(HONEST)

    return before


def _error(
    service: str, status: int, code: str, *, share: float, repeat: bool = False
) -> InjectedError:
    return InjectedError(service=service, share=share, status=status, code=code, repeat=repeat)


PROCESSES = (
    Fault("kill-server", processes.kill_task(SERVER)),
    Fault("kill-server-twice", processes.kill_task(SERVER, 2)),
    Fault("kill-proxy", processes.kill_task(PROXY)),
    Fault("kill-agent", processes.reboot),
    Fault("power-cut", processes.cut_power),
    Fault("kill-worker", processes.kill_worker),
    Fault("lose-device", processes.lose_device),
    Fault("pause-server", processes.pause(lambda stage: stage.task(SERVER), "server", 5.0)),
    Fault("pause-proxy", processes.pause(lambda stage: stage.task(PROXY), "proxy", LONGEST_PAUSE)),
    Fault("pause-agent", processes.pause(processes.any_agent, "agent", LONGEST_PAUSE)),
    Fault("pause-worker", processes.pause(processes.any_worker, "worker", LONGEST_PAUSE)),
    Fault("second-server", processes.second_task(SERVER)),
    Fault("second-proxy", processes.second_task(PROXY)),
)
GONE, SLOW = LinkCondition(refuses=True), LinkCondition(delay=0.15)
LINKS = (
    Fault("broker-gone", services.degrade("broker", GONE, "broker gone", 1, 4)),
    Fault("broker-cut", services.cut_broker),
    Fault("broker-slow", services.degrade("broker", SLOW, "broker's links slow", 2, 6)),
    Fault("s3-gone", services.degrade("s3", GONE, "S3 gone", 0.5, 3)),
    Fault(
        "s3-cut",
        services.degrade(
            "s3", LinkCondition(breaks_after=30_000), "transfers cut after 30 kB", 1, 3
        ),
    ),
    Fault(
        "s3-slow",
        services.degrade("s3", LinkCondition(rate=150_000.0), "links throttled to 150 kB/s", 2, 6),
    ),
)
ERRORS = {
    "s3-throttled": _error("s3", 503, "SlowDown", share=0.5),
    "dynamodb-throttled": _error(
        "dynamodb", 400, "ProvisionedThroughputExceededException", share=0.6
    ),
    "dynamodb-errors": _error("dynamodb", 500, "InternalServerError", share=0.6),
    "iot-throttled": _error("iot-data-plane", 429, "ThrottlingException", share=0.6),
    "heartbeats-refused": _error("sfn", 500, "InternalServerError", share=1.0),
    "commands-repeated": _error("iot-data-plane", 0, "", share=1.0, repeat=True),
}
LONGEST_ERRORS = {"heartbeats-refused": 6.0, "commands-repeated": 8.0}
"""Seconds, where it is not 4."""
SERVICES = tuple(
    Fault(kind, services.inject(rule, LONGEST_ERRORS.get(kind, 4.0)))
    for kind, rule in ERRORS.items()
)
OTHERS = (
    Fault("mlflow-locked", services.lock_mlflow),
    Fault("disk-full", processes.disk_full),
    Fault("app-missing", processes.remove_app),
    Fault("clock-skew", before=processes.skew_clock),
    Fault("callback-redelivered", services.redeliver_callback),
    Fault("commands-replayed", replay.replay_commands, before=replay.record_commands),
    Fault("pipeline-stopped", services.stop_pipeline, ends="Stopped", alone=True),
)
SYBIL_FAULTS = tuple(
    Fault(f"{SYBILS_PREFIX}{name}", before=_league(name), alone=True) for name in SYBILS
)
ACCIDENT_FAULTS = tuple(
    Fault(name, accident=accident, alone=True) for name, accident in ACCIDENTS.items()
)
ENVIRONMENT = (*PROCESSES, *LINKS, *SERVICES, *OTHERS, *SYBIL_FAULTS, *ACCIDENT_FAULTS)
"""The order is part of a seed's meaning: faults_of chooses by index."""
POISON = tuple(Fault(f"{HOSTILE_PREFIX}{name}", before=_behave(name)) for name in BEHAVIOURS)
FAULTS = {fault.kind: fault for fault in (*ENVIRONMENT, *POISON)}


def faults_of(seed: int, only: list[str]) -> list[Fault]:
    """A seed's faults: each kind in turn, with up to two others; the same for the same seed.

    ``only``: these kinds instead.
    """
    rng = random.Random(f"chaos {seed}")  # noqa: S311  # chance, not a secret
    if only:
        return [FAULTS[kind] for kind in only]
    chosen = [ENVIRONMENT[seed % len(ENVIRONMENT)]]
    if chosen[0].alone:
        return chosen
    others = [
        fault
        for fault in ENVIRONMENT
        if fault is not chosen[0] and not fault.alone and fault.kind != "kill-server-twice"
    ]
    if rng.random() < 0.4:
        chosen.append(rng.choice(others))
    chosen.append(POISON[seed % len(POISON)])
    return chosen


def attack_of(faults: list[Fault]) -> Attack:
    """What the hostile devices do under these faults, and which they are."""
    for fault in faults:
        if fault.kind.startswith(HOSTILE_PREFIX):
            return Attack(fault.kind.removeprefix(HOSTILE_PREFIX), (HOSTILE,))
        if fault.kind.startswith(SYBILS_PREFIX):
            return Attack(fault.kind.removeprefix(SYBILS_PREFIX), SYBIL_DEVICES)
    return Attack(HONEST, ())
