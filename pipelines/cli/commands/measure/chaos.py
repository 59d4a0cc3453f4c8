"""``mledgeops chaos``: runs under seeded faults, on a local cloud of its own or simulated."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fl_runtime.run.aws import client
from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.chaos.faults.catalogue import FAULTS
from pipelines.chaos.suite import Verdict, run_suite, survival_by_kind
from pipelines.chaos.world import ChaosClients, running_world
from pipelines.cli.options import declare
from pipelines.cli.output import answer, say, table
from pipelines.desk import wiring
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.chaos.simulation.suite import Simulated

FEW = 20
"""Up to so many simulated seeds are reported one by one; of more only those that fail."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("chaos")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds (default 10)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KIND",
        help="these faults in each seed, instead of the seed's own",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=None,
        help="folder for the local cloud, kept afterwards (default: a temporary one)",
    )
    parser.add_argument("--list", action="store_true", help="list the kinds of faults")
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="everything in one process and in virtual time; a seed repeats exactly",
    )
    declare(parser, chaos, cloud=False)


def chaos(arguments: argparse.Namespace) -> int:
    """Exit 0 when every seed's run survived, 1 when one did not."""
    if arguments.list:
        answer(arguments.json, {"faults": list(FAULTS)}, "\n".join(FAULTS))
        return 0
    if arguments.seeds < 1:
        raise UsageError(f"--seeds is {arguments.seeds}; it must be a whole number of at least 1.")
    if unknown := [kind for kind in arguments.only if kind not in FAULTS]:
        raise UsageError(f"There is no fault {unknown[0]!r}: `mledgeops chaos --list` lists them.")
    alone = next((kind for kind in arguments.only if FAULTS[kind].alone), "")
    if alone and len(arguments.only) > 1:
        raise UsageError(f"{alone} has no other fault beside it: give it as the only --only.")
    seeds = list(range(arguments.first, arguments.first + arguments.seeds))
    if arguments.simulate:
        return _simulate(arguments, seeds)

    def report(verdict: Verdict) -> None:
        if not arguments.json:
            say(verdict_text(verdict))

    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.home or Path(temporary)).resolve()
        with running_world(folder, _clients) as world:
            runner = wiring.runner(world.cloud.deployment)
            verdicts = run_suite(world, runner, seeds, arguments.only, report)
    counts = survival_by_kind(verdicts)
    failures = [verdict for verdict in verdicts if verdict.violations]
    document = {
        "seeds": len(verdicts),
        "faults": counts,
        "failures": msgspec.to_builtins(failures),
    }
    answer(arguments.json, document, suite_text(verdicts, counts))
    return 1 if failures else 0


def _simulate(arguments: argparse.Namespace, seeds: list[int]) -> int:
    # It takes Flower, whose import would cost every other command a second.
    from pipelines.chaos.simulation.suite import simulate_all

    if arguments.only:
        raise UsageError(
            "--only and --simulate cannot be used together: a seed has its own faults."
        )

    def report(outcome: Simulated) -> None:
        if not arguments.json and (outcome.violations or arguments.seeds <= FEW):
            say(simulated_text(outcome))

    began = time.monotonic()
    outcomes = simulate_all(seeds, report)
    seconds = time.monotonic() - began
    failures = [outcome for outcome in outcomes if outcome.violations]
    document = {
        "seeds": len(outcomes),
        "seconds": round(seconds, 1),
        "failures": msgspec.to_builtins(failures),
    }
    survived = len(outcomes) - len(failures)
    text = f"{survived} of {len(outcomes)} simulated seeds survived, in {seconds:.0f} s"
    answer(arguments.json, document, text)
    return 1 if failures else 0


def simulated_text(outcome: Simulated) -> str:
    """A simulated seed's outcome, its faults, and the invariants that did not hold."""
    head = f"seed {outcome.seed:4d}  {outcome.status} in {outcome.virtual_seconds:.1f} virtual s"
    return "\n".join(
        [
            f"{head}, {outcome.events} events, trace {outcome.trace[:12]}",
            f"           {outcome.weather}",
            *(f"    LOST   {text}" for text in outcome.violations),
        ]
    )


def verdict_text(verdict: Verdict) -> str:
    """A seed's outcome, what was done to its run, and the invariants that did not hold."""
    head = f"seed {verdict.seed:4d}  {verdict.status} in {verdict.seconds:.1f} s"
    return "\n".join(
        [
            f"{head}  {', '.join(verdict.faults)}",
            *(f"           {text}" for text in verdict.told),
            *(f"    LOST   {text}" for text in verdict.violations),
        ]
    )


def suite_text(verdicts: list[Verdict], counts: dict[str, dict[str, int]]) -> str:
    """How often each kind of fault was survived, and how many seeds were."""
    rows = [[kind, row["tried"], row["survived"]] for kind, row in counts.items()]
    survived = sum(not verdict.violations for verdict in verdicts)
    slowest = max(verdict.seconds for verdict in verdicts)
    return (
        f"\n{table(['fault', 'tried', 'survived'], rows)}\n\n"
        f"{survived} of {len(verdicts)} seeds survived; the slowest took {slowest:.1f} s"
    )


def _clients() -> ChaosClients:
    return ChaosClients(
        fleet=wiring.fleet_clients(),
        s3=client("s3"),
        sagemaker=client("sagemaker"),
        sqs=client("sqs"),
        mlflow=mlflow_client(),
        iot_data=client("iot-data"),
    )
