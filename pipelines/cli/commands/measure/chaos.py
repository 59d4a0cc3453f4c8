"""``mledgeops chaos``: runs under seeded faults, on a local cloud of its own."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

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


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("chaos", help="run under seeded faults, and check invariants")
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

    def report(verdict: Verdict) -> None:
        if not arguments.json:
            say(verdict_text(verdict))

    seeds = list(range(arguments.first, arguments.first + arguments.seeds))
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
    )
