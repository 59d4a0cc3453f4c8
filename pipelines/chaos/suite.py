"""One seed after the other: a run, its faults, and what must hold afterwards."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable

import msgspec

from fl_runtime.run.aws import client
from fl_runtime.run.state import RunTable
from pipelines.chaos.faults import Fault, Stage, faults_of
from pipelines.chaos.invariants import as_json, violations
from pipelines.chaos.world import World
from pipelines.run.clients import run_clients
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner, Started

SEED_SECONDS = 30.0
"""A run of three rounds that takes longer than this, whatever happens to it, hangs."""
GIVE_UP_SECONDS = 60.0
EARLY_SHARE = 0.2
"""Of faults that begin while the run is being started."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    faults: list[str]
    status: str
    seconds: float
    told: list[str]
    violations: list[str]


def run_seed(world: World, seed: int, only: list[str]) -> Verdict:
    """One run under the faults of a seed."""
    world.settle()
    faults, dice = faults_of(seed, only), random.Random(f"act {seed}")  # noqa: S311  # chance, no secret
    undo = [fault.before(world, dice) for fault in faults if fault.before is not None]
    began = time.monotonic()
    wrong: list[str] = []
    runner = Runner(world.cloud.deployment, run_clients(world.cloud.deployment))
    started = runner.start(world.plan(seed))
    stage = Stage(
        world,
        _run_of(runner, started),
        started.arn,
        RunTable(client("dynamodb"), world.cloud.deployment.runs_table),
        dice,
    )
    try:
        threads = [_acting(fault, stage, wrong) for fault in faults if fault.act is not None]
        report = _ended(runner, started)
        seconds = time.monotonic() - began
        for thread in threads:
            thread.join(GIVE_UP_SECONDS)
    finally:
        for call in undo:
            call()
    ends = next((fault.ends for fault in faults if fault.ends != "Succeeded"), "Succeeded")
    if report.status == "Succeeded":  # a stop that comes when all is done stops nothing
        ends = "Succeeded"
    behaviour = next(
        (
            fault.kind.removeprefix("hostile-")
            for fault in faults
            if fault.kind.startswith("hostile-")
        ),
        "honest",
    )
    wrong += violations(stage, report, ends, behaviour)
    if seconds > SEED_SECONDS:
        wrong.append(f"it took {seconds:.1f} s")
    if wrong:
        wrong.append(f"run {stage.run}: {as_json(report.rounds)}")
    return Verdict(
        seed=seed,
        faults=[fault.kind for fault in faults],
        status=report.status,
        seconds=round(seconds, 1),
        told=stage.told,
        violations=wrong,
    )


def _run_of(runner: Runner, started: Started) -> str:
    """The run's id, as soon as its callback has a token."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if run := runner.run_of(started.arn):
            return run
        time.sleep(0.05)
    raise TimeoutError("the pipeline did not begin its run")


def _acting(fault: Fault, stage: Stage, wrong: list[str]) -> threading.Thread:
    """Begin a fault at a moment of its own: mostly while rounds are made, at times before or after."""
    act, early, delay = fault.act, stage.dice.random() < EARLY_SHARE, stage.dice.uniform(0.0, 2.5)

    def work() -> None:
        while not early and not stage.serving() and not stage.over():
            time.sleep(0.05)
        time.sleep(delay)
        if stage.over() or act is None:
            return
        try:
            act(stage)
        except AssertionError as error:
            wrong.append(str(error))
        except Exception:  # noqa: BLE001  # a fault that fails is a failure of the seed
            wrong.append(f"the fault {fault.kind} itself failed: {traceback.format_exc(limit=-2)}")

    thread = threading.Thread(target=work, name=fault.kind, daemon=True)
    thread.start()
    return thread


def _ended(runner: Runner, started: Started) -> RunReport:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not runner.ended(started.arn):
        if time.monotonic() > deadline:
            runner.stop(started, 15.0)
            report = runner.report(started)
            report.status, report.reason = (
                "Hung",
                f"the run had not ended after {GIVE_UP_SECONDS:.0f} s",
            )
            return report
        time.sleep(0.1)
    return runner.report(started)


def table_of(verdicts: list[Verdict]) -> dict[str, dict[str, int]]:
    """How often each kind was tried, and how often the run survived it."""
    counts: dict[str, dict[str, int]] = {}
    for verdict in verdicts:
        for kind in verdict.faults:
            row = counts.setdefault(kind, {"tried": 0, "survived": 0})
            row["tried"] += 1
            row["survived"] += not verdict.violations
    return dict(sorted(counts.items()))


Tell = Callable[[Verdict], None]


def run_suite(world: World, seeds: list[int], only: list[str], tell: Tell) -> list[Verdict]:
    """All seeds; each is told as it ends."""
    verdicts = []
    for seed in seeds:
        verdict = run_seed(world, seed, only)
        tell(verdict)
        verdicts.append(verdict)
    return verdicts
