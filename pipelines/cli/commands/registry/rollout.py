"""``mledgeops rollout``: shows staged rollouts, starts one, or rolls one back."""

from __future__ import annotations

import argparse
import getpass
import time
from typing import Any

from pipelines.cli.commands.registry.models import check_store
from pipelines.cli.commands.registry.rollout_text import DID_NOT_STAY, rollout_row, rollout_text
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.desk import clouds, wiring
from pipelines.desk.decisions import devices_up, follow, override_checks, signed_candidate
from pipelines.errors import UsageError
from registry.approval import find
from registry.errors import RegistryError
from registry.evidence.prechecks import failed
from registry.rollout.model import FleetRecord, Rollout
from registry.wiring import Registry


def add_parser(commands: Any) -> None:
    """Declare the command."""
    rollout = commands.add_parser("rollout")
    rollout.add_argument(
        "version",
        nargs="?",
        default="",
        help="an approved version to send (default: show rollouts)",
    )
    rollout.add_argument("--override", action="store_true", help="send it although prechecks fail")
    rollout.add_argument(
        "--abort", default="", metavar="FLEET", help="roll the fleet's rollout back"
    )
    rollout.add_argument("--reason", default="", help="why; kept in the audit trail")
    declare(rollout, run)


def run(arguments: argparse.Namespace) -> int:
    """Exit 1 when a rollout that was started did not stay on the devices."""
    if not arguments.abort and not arguments.version:
        return _list(arguments)
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud) as cloud:
        act = _abort if arguments.abort else _start
        return act(arguments, cloud, wiring.registry())


def _start(arguments: argparse.Namespace, cloud: clouds.Cloud, registry: Registry) -> int:
    version = find(registry.mlflow.versions(), arguments.version)
    if version.approval != "Approved":
        raise RegistryError(
            f"{version.model_version} is {version.approval}: only an approved version goes to "
            "devices."
        )
    reason = arguments.reason or "asked for"
    fleet = signed_candidate(registry, version).fleet
    if arguments.override and (wrong := failed(registry.candidates.checks(version))):
        override_checks(registry, version, reason, wrong)
    with devices_up(cloud, wiring.fleet_clients(), fleet):
        begun = registry.rollouts.begin(
            version,
            by=registry.caller(),
            reason=reason,
            queue=False,
            override=arguments.override,
        )
        return _show(arguments.json, follow(cloud, registry, begun.rollout))


def _abort(arguments: argparse.Namespace, cloud: clouds.Cloud, registry: Registry) -> int:
    fleet, reason = arguments.abort, arguments.reason
    if not reason.strip():
        raise UsageError("--abort needs --reason: say why, for those who come after you.")
    number = registry.store.current(fleet).under_way
    with devices_up(cloud, wiring.fleet_clients(), fleet):
        aborted = registry.conductor.abort(
            fleet, number, f"{getpass.getuser()}: {reason}", time.time()
        )
        registry.rollouts.resume(aborted)
        _show(arguments.json, follow(cloud, registry, aborted))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found, fleets = _stored(arguments.cloud)
    uses = {f.fleet: f.candidate.model_version if f.candidate else "" for f in fleets}
    document = {
        "fleets": [
            {"fleet": f.fleet, "model_version": uses[f.fleet], "next": f.next} for f in fleets
        ],
        "rollouts": [rollout_row(rollout) for rollout in found],
    }
    text = "no rollout yet: `mledgeops approve VERSION` starts one"
    if found:
        rows = [[f.fleet, uses[f.fleet] or "nothing", f.under_way or "", f.next] for f in fleets]
        lines = [rollout_text(rollout) for rollout in reversed(found)]
        fleets_text = table(["fleet", "runs", "rollout under way", "next"], rows)
        text = "\n".join([*lines, "", fleets_text])
    answer(arguments.json, document, text)
    return 0


def _stored(cloud: str) -> tuple[list[Rollout], list[FleetRecord]]:
    """All rollouts, and what each fleet runs. Both are empty in a new home."""
    with clouds.use_store(cloud) as exists:
        if not exists:
            return [], []
    with clouds.use(cloud):
        store = wiring.registry().store
        return list(store.rollouts()), list(store.fleets())


def _show(as_json: bool, rollout: Any) -> int:
    answer(as_json, rollout_row(rollout), rollout_text(rollout))
    return 1 if rollout.state in (*DID_NOT_STAY, "Aborted") else 0
