"""``mledgeops rollout | policy | audit``: how models go to fleets, by which rules, and who decided
what.
"""

from __future__ import annotations

import argparse
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pipelines.cli.commands.registry.models import rollout_row, rollout_text, use_store
from pipelines.cli.output import moment, say, show_json, table
from pipelines.desk import clouds
from pipelines.desk.decisions import devices_up, follow
from pipelines.desk.registry import open_registry
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from registry.wiring import Registry


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    rollout = commands.add_parser(
        "rollout", help="show rollouts; send an approved version to its fleet; turn a rollout back"
    )
    rollout.add_argument(
        "version",
        nargs="?",
        default="",
        help="an approved version to send (default: show rollouts)",
    )
    rollout.add_argument("--override", action="store_true", help="send it although pre-checks fail")
    rollout.add_argument(
        "--abort", default="", metavar="FLEET", help="turn the fleet's rollout back"
    )
    rollout.add_argument("--reason", default="", help="why; kept in the audit trail")
    policy = commands.add_parser(
        "policy", help="show the policy of pre-checks and rollouts, or put one in force"
    )
    policy.add_argument(
        "file", type=Path, nargs="?", help="a TOML file with the tables [gates] and [rollout]"
    )
    audit = commands.add_parser("audit", help="show the audit trail and whether it is whole")
    for parser, function in ((rollout, run), (policy, show_policy), (audit, show_audit)):
        clouds.add_option(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def run(arguments: argparse.Namespace) -> int:
    """Exit 1 when a rollout that was asked for turned back."""
    from registry.approval import find
    from registry.errors import RegistryError

    use_store()
    with clouds.use(arguments.cloud) as cloud:
        registry = open_registry()
        if arguments.abort:
            return _abort(arguments, cloud, registry)
        if not arguments.version:
            return _list(arguments, registry)
        version = find(registry.mlflow.versions(), arguments.version)
        if version.approval != "Approved":
            raise RegistryError(
                f"{version.model_version} is {version.approval}: only an approved version goes to devices."
            )
        with devices_up(cloud, registry.candidates.of(version).fleet):
            begun = registry.rollouts.begin(
                version,
                by=getpass.getuser(),
                reason=arguments.reason or "asked for",
                queue=False,
                override=arguments.override,
            )
            return _shown(arguments.json, follow(cloud, registry, begun.rollout))


def _abort(arguments: argparse.Namespace, cloud: clouds.Cloud, registry: Registry) -> int:
    if not arguments.reason.strip():
        raise UsageError("--abort needs --reason: say why, for those who come after you.")
    number = registry.store.current(arguments.abort).under_way
    with devices_up(cloud, arguments.abort):
        rollout = registry.conductor.abort(
            arguments.abort, number, f"{getpass.getuser()}: {arguments.reason}", time.time()
        )
        registry.rollouts.resume(rollout)
        _shown(arguments.json, follow(cloud, registry, rollout))
    return 0


def _list(arguments: argparse.Namespace, registry: Registry) -> int:
    found, fleets = registry.store.rollouts(), registry.store.fleets()
    if arguments.json:
        current = [
            {
                "fleet": f.fleet,
                "model_version": f.candidate.model_version if f.candidate else "",
                "next": f.next,
            }
            for f in fleets
        ]
        show_json({"fleets": current, "rollouts": [rollout_row(rollout) for rollout in found]})
    elif not found:
        say("no rollout yet: `mledgeops approve VERSION` begins one")
    else:
        for rollout in reversed(found):
            say(rollout_text(rollout))
        rows = [
            [
                f.fleet,
                f.candidate.model_version if f.candidate else "nothing",
                f.under_way or "",
                f.next,
            ]
            for f in fleets
        ]
        say("\n" + table(["fleet", "runs", "rollout under way", "next"], rows))
    return 0


def _shown(as_json: bool, rollout: Any) -> int:
    show_json(rollout_row(rollout)) if as_json else say(rollout_text(rollout))
    return 1 if rollout.state in ("TurningBack", "RolledBack", "Aborted") else 0


def show_policy(arguments: argparse.Namespace) -> int:
    """The policy in force, after putting ``file`` in force where one is given."""
    from registry.policy import read_policy

    policy = read_policy(arguments.file) if arguments.file is not None else None
    use_store()
    with clouds.use(arguments.cloud):
        registry = open_registry()
        if policy is not None:
            registry.set_policy(policy, getpass.getuser())
        current = msgspec.to_builtins(registry.policy())
    if arguments.json:
        show_json(current)
        return 0
    for section, values in current.items():
        say(f"[{section}]")
        for key, value in values.items():
            say(f"{key} = {list(value) if isinstance(value, tuple) else value}")
    return 0


def show_audit(arguments: argparse.Namespace) -> int:
    """The trail from the first entry; exit 1 when it was tampered with."""
    use_store()
    with clouds.use(arguments.cloud):
        registry = open_registry()
        entries, wrong = (
            list(registry.audit.entries()),
            registry.audit.verify(registry.mlflow.audit_heads()),
        )
    if arguments.json:
        show_json(
            {"entries": [msgspec.to_builtins(entry) for entry in entries], "violations": wrong}
        )
    else:
        rows = [[e.number, moment(e.at), e.who, e.what, e.subject, e.why] for e in entries]
        say(
            table(["entry", "when", "who", "what", "about", "why"], rows)
            if rows
            else "nothing was decided yet"
        )
        say("\n".join(wrong) if wrong else "the trail is whole")
    return 1 if wrong else 0
