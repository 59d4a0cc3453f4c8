"""A random sample of mutants: ``python -m mutants.campaign [--count 300] [--seed N]``.

``make mutants``. Each mutant is run against the unit tests and contracts that run the changed
function, the quick ones first. Prints the score and every survivor; exits 1 when more than
5 % survive.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import msgspec

from mutants import workers
from mutants.concerned import Concerned, by_line
from mutants.mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
DECIDING = (
    "edge/protocol/records.py",
    "edge/protocol/tensors.py",
    "edge/protocol/values.py",
    "edge/protocol/signed.py",
    "edge/identity/trust.py",
    "edge/agent/freshness.py",
    "edge/agent/order_gate.py",
    "edge/agent/spool.py",
    "fl_runtime/aggregation/blocks.py",
    "fl_runtime/aggregation/mapped.py",
    "fl_runtime/aggregation/weighted_mean.py",
    "fl_runtime/cohort/fold.py",
    "fl_runtime/cohort/norm_filter.py",
    "fl_runtime/cohort/updates.py",
    "fl_runtime/run/metric_rules.py",
    "fl_runtime/run/robust.py",
    "fl_runtime/run/decisions.py",
    "fl_runtime/server/conclusion.py",
    "fl_runtime/server/grid/review.py",
    "fl_runtime/server/rounds/champion.py",
    "fl_runtime/server/rounds/checkpoints.py",
    "fl_runtime/server/rounds/quorum.py",
    "fl_runtime/server/rounds/selection.py",
    "fl_runtime/server/rounds/stopping.py",
    "registry/approval.py",
    "registry/audit.py",
    "registry/policy.py",
    "registry/evidence/compare.py",
    "registry/evidence/prechecks.py",
    "registry/reconcile/model.py",
    "registry/reconcile/plan.py",
    "registry/reconcile/repair.py",
    "registry/reconcile/runs.py",
    "registry/rollout/candidates.py",
    "registry/rollout/claim.py",
    "registry/rollout/conductor.py",
    "registry/rollout/judging.py",
    "registry/rollout/service.py",
    "registry/rollout/stale_devices.py",
    "registry/rollout/waves.py",
)
"""Modules that decide what counts, what is trusted, when a run ends, and what a fleet gets."""
Task = tuple[int, Mutant, list[str]]
Outcome = tuple[int, str] | None
MAY_SURVIVE = 0.05
SAID_EVERY = 50
"""Mutants after which it is said how far a campaign has come: it may take an hour."""
TESTS_SECONDS = 10.0
"""Tests of a mutant, by their usual duration; the quickest are taken."""
SECONDS = 150.0
"""Longest time for a mutant, also on a busy machine: of one that waits for ever."""


@cache
def sources() -> dict[str, bytes]:
    """The texts of the modules, as they are at the start."""
    return {module: (ROOT / module).read_bytes() for module in DECIDING}


def sample(count: int, seed: int, modules: str) -> list[Mutant]:
    """A random choice of all mutants of the modules whose path contains a text."""
    known = [
        mutant
        for module, source in sources().items()
        if modules in module
        for mutant in mutants(module, source)
    ]
    return random.Random(seed).sample(known, min(count, len(known)))


def tests_of(mutant: Mutant, known: Concerned) -> list[str]:
    """The tests that run the changed function, or the module when the change is outside of any.

    Those of the module's own test file come first, then the quick ones.
    """
    function = "" if mutant.at_import else by_line(sources()[mutant.module])[mutant.change.line]
    own = f"/test_{Path(mutant.module).stem}.py"
    tests = sorted(
        known.running(mutant.module, function),
        key=lambda test: (own not in test, known.seconds[test]),
    )
    chosen, seconds = [], 0.0
    for test in tests:
        seconds += known.seconds[test]
        if chosen and seconds > TESTS_SECONDS:
            break
        chosen.append(test)
    return chosen


def work(folder: str, tasks: list[Task], outcomes: SimpleQueue[Outcome]) -> None:
    """Try each mutant of a share of the sample, in a copy of the code; None says it is done."""
    try:
        copy = workers.copied(ROOT, Path(folder))
        workers.prepare(copy)
        # The tests may have changed since it was recorded which of them runs what.
        all_tests = {test for _, _, tests in tasks for test in tests}
        there = workers.collected(all_tests, copy / "listing")
        if len(there) < 0.9 * len(all_tests):
            sys.exit("A tenth of the recorded tests is gone: record anew which test runs what.")
        for number, mutant, recorded in tasks:
            tests = [test for test in recorded if test in there]
            text = mutant.applied(sources()[mutant.module])
            tried = workers.tried(copy / mutant.module, text, tests, SECONDS) if tests else None
            outcomes.put((number, tried or workers.SURVIVED))
    finally:
        outcomes.put(None)


def concerned(kept: Path | None) -> Concerned:
    """Which test runs what: of ``kept``, the file of an earlier run, only what has changed since
    is run again.
    """
    known = Concerned({}, {}, {})
    if kept and kept.exists():
        known = msgspec.json.decode(kept.read_bytes(), type=Concerned)
    if outdated := known.outdated(ROOT):
        with tempfile.TemporaryDirectory() as folder:
            copy = workers.copied(ROOT, Path(folder))
            file = Path(folder) / "tests.json"
            command = [sys.executable, "-m", "mutants.concerned", str(file)]
            subprocess.run(
                [*command, "--modules", *DECIDING, "--tests", *outdated],
                cwd=copy,
                env=workers.environment(copy),
                check=True,
                stdout=sys.stderr,
            )
            known = known.updated(msgspec.json.decode(file.read_bytes(), type=Concerned))
    if kept:
        kept.write_bytes(msgspec.json.encode(known))
    return known


def main() -> int:
    """Try a sample, and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--module", default="", help="only modules whose path contains this")
    parser.add_argument("--tests", type=Path, help="a file to keep which test runs what")
    options = parser.parse_args()
    started = time.monotonic()
    known = concerned(options.tests and options.tests.resolve())
    chosen = [
        (number, mutant, tests_of(mutant, known))
        for number, mutant in enumerate(sample(options.count, options.seed, options.module))
    ]
    results = multiprocessing.SimpleQueue()
    outcomes: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = range(options.jobs)
        shares = [(f"{folder}/{job}", chosen[job :: options.jobs], results) for job in jobs]
        processes = [multiprocessing.Process(target=work, args=share) for share in shares]
        for process in processes:
            process.start()
        for _ in processes:
            while (result := results.get()) is not None:
                number, outcomes[number] = result
                if outcomes[number] == workers.SURVIVED:
                    _, mutant, tests = chosen[number]
                    text = mutant.described(sources()[mutant.module])
                    print(f"survived {len(tests)} tests: {text}", flush=True)
                if len(outcomes) % SAID_EVERY == 0:
                    survived = Counter(outcomes.values())[workers.SURVIVED]
                    print(f"{len(outcomes)} tried, {survived} survived", flush=True)
        for process in processes:
            process.join()
    if len(outcomes) < len(chosen):
        return 2
    return _report(outcomes, time.monotonic() - started)


def _report(outcomes: dict[int, str], seconds: float) -> int:
    counts = Counter(outcomes.values())
    survived = counts[workers.SURVIVED]
    share = survived / max(1, len(outcomes))
    print(
        f"{len(outcomes)} mutants in {seconds:.0f} s: {survived} survived ({share:.1%}), "
        f"{counts[workers.KILLED]} killed, {counts[workers.ENDLESS]} did not end"
    )
    return 1 if share > MAY_SURVIVE else 0


if __name__ == "__main__":
    sys.exit(main())
