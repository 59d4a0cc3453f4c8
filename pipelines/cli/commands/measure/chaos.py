"""``mledgeops chaos``: seeded faults over real runs on a local cloud of their own."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from pipelines.cli.output import say, show_json, table
from pipelines.errors import UsageError


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("chaos", help="run under seeded faults, and check what must hold")
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
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=chaos)


def chaos(arguments: argparse.Namespace) -> int:
    """Exit 0 when every seed's run survived, 1 otherwise, 2 for bad usage."""
    from pipelines.chaos.faults import FAULTS
    from pipelines.chaos.suite import Verdict, run_suite, table_of
    from pipelines.chaos.world import World

    if arguments.list:
        show_json({"faults": list(FAULTS)}) if arguments.json else say("\n".join(FAULTS))
        return 0
    if arguments.seeds < 1:
        raise UsageError(f"--seeds is {arguments.seeds}; it must be a whole number of at least 1.")
    if unknown := [kind for kind in arguments.only if kind not in FAULTS]:
        raise UsageError(f"There is no fault {unknown[0]!r}: `mledgeops chaos --list` lists them.")

    def tell(verdict: Verdict) -> None:
        if not arguments.json:
            say(
                f"seed {verdict.seed:4d}  {verdict.status} in {verdict.seconds:.1f} s  {', '.join(verdict.faults)}"
            )
            for text in verdict.told:
                say(f"           {text}")
            for text in verdict.violations:
                say(f"    LOST   {text}")

    with (
        tempfile.TemporaryDirectory() as folder,
        World.made((arguments.home or Path(folder)).resolve()) as world,
    ):
        verdicts = run_suite(
            world,
            list(range(arguments.first, arguments.first + arguments.seeds)),
            arguments.only,
            tell,
        )
    counts, failures = table_of(verdicts), [verdict for verdict in verdicts if verdict.violations]
    if arguments.json:
        show_json(
            {"seeds": len(verdicts), "faults": counts, "failures": msgspec.to_builtins(failures)}
        )
    else:
        say()
        say(
            table(
                ["fault", "tried", "survived"],
                [[kind, row["tried"], row["survived"]] for kind, row in counts.items()],
            )
        )
        slowest = max(verdicts, key=lambda verdict: verdict.seconds)
        say(
            f"\n{len(verdicts) - len(failures)} of {len(verdicts)} seeds survived; the slowest took {slowest.seconds:.1f} s"
        )
    return 1 if failures else 0
