"""Runs the seeds: one run each, under its faults, and the invariants afterwards."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable

import msgspec

from fl_runtime.run.state import RunTable
from pipelines.chaos.accidents.accident import Accident, Scene
from pipelines.chaos.faults.catalogue import attack_of, faults_of
from pipelines.chaos.faults.fault import Act, Fault
from pipelines.chaos.invariants import rounds_text, violations
from pipelines.chaos.stage import Stage
from pipelines.chaos.world import World
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner, Started

SEED_SECONDS = 30.0
"""A run that takes longer, under whatever faults, counts as hung. On an idle machine: a slower one
gets as much longer as it is slower while the run is under way (:mod:`~pipelines.chaos.slowness`).
"""
GIVE_UP_SECONDS = 60.0
SKIPPED = "Skipped"
"""Status of a seed whose accident cannot happen on this machine."""
EARLY_SHARE = 0.2
"""Share of the faults that begin while the run is being started."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one seed."""

    seed: int
    faults: list[str]
    status: str
    seconds: float
    told: list[str]
    """What was done to the run."""
    slowness: float = 1.0
    """How many seconds a second of processor time took."""
    violations: list[str]
    """Invariants that did not hold; empty: the run survived."""


def run_suite(
    world: World,
    runner: Runner,
    seeds: list[int],
    only: list[str],
    report: Callable[[Verdict], None],
) -> list[Verdict]:
    """Run the seeds one after the other; each verdict is reported at once.

    ``only``: kinds of faults that replace the seeds' own.
    """
    verdicts = []
    for seed in seeds:
        verdicts.append(run_seed(world, runner, seed, only))
        report(verdicts[-1])
    return verdicts


def run_seed(world: World, runner: Runner, seed: int, only: list[str]) -> Verdict:
    """One run under the faults of a seed."""
    faults, rng = faults_of(seed, only), random.Random(f"act {seed}")  # noqa: S311  # chance
    if accident := next((fault.accident for fault in faults if fault.accident), None):
        return _have_accident(world, seed, faults[0].kind, accident, rng)
    world.reset()
    undo = [fault.before(world, rng) for fault in faults if fault.before is not None]
    began = time.monotonic()
    failed: list[str] = []
    started = runner.start(world.plan(seed))
    stage = _stage(world, runner, started, rng)
    try:
        threads = [_start(fault, fault.act, stage, failed) for fault in faults if fault.act]
        report = _await_end(runner, started, stage.patience(GIVE_UP_SECONDS))
        seconds = time.monotonic() - began
        for thread in threads:
            thread.join(stage.patience(GIVE_UP_SECONDS))
    finally:
        for call in undo:
            call()
    failed += violations(stage, report, _expected_end(faults, report), attack_of(faults))
    slowness = world.slowness.since(began)
    if seconds > SEED_SECONDS * slowness:
        failed.append(f"it took {seconds:.1f} s on a machine {slowness:.1f} times as slow as idle")
    if failed:
        failed.append(f"run {stage.run}: {rounds_text(report.rounds)}")
    return Verdict(
        seed=seed,
        faults=[fault.kind for fault in faults],
        status=report.status,
        seconds=round(seconds, 1),
        told=stage.notes,
        slowness=round(slowness, 1),
        violations=failed,
    )


def _have_accident(
    world: World, seed: int, kind: str, accident: Accident, rng: random.Random
) -> Verdict:
    """A user's commands, in a home beside the suite's own cloud, and what happens to them."""
    began, scene = time.monotonic(), Scene(world.home.root / "user", rng, world.slowness)
    failed = list(accident(scene))
    return Verdict(
        seed=seed,
        faults=[kind],
        status=SKIPPED if scene.skipped else "Told",
        seconds=round(time.monotonic() - began, 1),
        told=scene.notes,
        slowness=round(world.slowness.since(began), 1),
        violations=failed,
    )


def survival_by_kind(verdicts: list[Verdict]) -> dict[str, dict[str, int]]:
    """For each kind of fault how often it was ``tried``, and how often the run ``survived``. What
    this machine does not allow was not tried.
    """
    counts: dict[str, dict[str, int]] = {}
    for verdict in (verdict for verdict in verdicts if verdict.status != SKIPPED):
        for kind in verdict.faults:
            row = counts.setdefault(kind, {"tried": 0, "survived": 0})
            row["tried"] += 1
            row["survived"] += not verdict.violations
    return dict(sorted(counts.items()))


def _stage(world: World, runner: Runner, started: Started, rng: random.Random) -> Stage:
    """The stage of a run, once its callback has a token and so the run a name."""
    table = RunTable(world.clients.fleet.dynamodb, world.cloud.deployment.runs_table)
    deadline = time.monotonic() + 10 * world.slowness.now()
    while time.monotonic() < deadline:
        if run := runner.run_of(started.arn):
            return Stage(world, run, started.arn, table, rng)
        time.sleep(0.05)
    raise TimeoutError("the pipeline did not begin its run")


def _start(fault: Fault, act: Act, stage: Stage, failed: list[str]) -> threading.Thread:
    """Start a fault's thread; it acts at a random moment, mostly while rounds are made."""
    early, delay = stage.rng.random() < EARLY_SHARE, stage.rng.uniform(0.0, 2.5)

    def work() -> None:
        while not early and not stage.has_server() and not stage.has_ended():
            time.sleep(0.05)
        time.sleep(delay)
        if stage.has_ended():
            return
        try:
            act(stage)
        except AssertionError as error:
            failed.append(str(error))
        except Exception:  # noqa: BLE001  # a fault that fails is a failure of the seed
            trace = traceback.format_exc(limit=-2)
            failed.append(f"the fault {fault.kind} itself failed: {trace}")

    thread = threading.Thread(target=work, name=fault.kind, daemon=True)
    thread.start()
    return thread


def _await_end(runner: Runner, started: Started, seconds: float) -> RunReport:
    """The report of a run that has ended, or that was stopped because it hung."""
    deadline = time.monotonic() + seconds
    while not runner.ended(started.arn):
        if time.monotonic() > deadline:
            runner.stop(started, 15.0)
            report = runner.report(started)
            report.status = "Hung"
            report.reason = f"the run had not ended after {seconds:.0f} s"
            return report
        time.sleep(0.1)
    return runner.report(started)


def _expected_end(faults: list[Fault], report: RunReport) -> str:
    """How the run had to end. A stop that comes after the end stops nothing."""
    if report.status == "Succeeded":
        return "Succeeded"
    return next((fault.ends for fault in faults if fault.ends != "Succeeded"), "Succeeded")
