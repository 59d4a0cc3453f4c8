"""``mledgeops approve | reject | rollback``: what goes to the fleet."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from pipelines.cli.commands.registry.models import check_store
from pipelines.cli.commands.registry.rollout_text import DID_NOT_STAY, rollout_row, rollout_text
from pipelines.cli.options import VERSION_HELP, declare
from pipelines.cli.output import answer
from pipelines.desk import clouds, wiring
from pipelines.desk.decisions import check_agents, decide_on, devices_up, follow, signed_candidate
from pipelines.errors import UsageError
from registry.approval import find
from registry.model_version import Approval, Version
from registry.promotion import rollback_target
from registry.rollout.model import Rollout


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    approving = commands.add_parser("approve")
    rejecting = commands.add_parser("reject")
    for parser, function in ((approving, approve), (rejecting, reject)):
        parser.add_argument("version", help=VERSION_HELP)
        parser.add_argument(
            "--reason", required=True, help="why; kept in both registries and in the audit trail"
        )
        declare(parser, function)
    approving.add_argument(
        "--override",
        action="store_true",
        help="approve although prechecks fail; kept with the reason",
    )
    back = commands.add_parser("rollback")
    back.add_argument(
        "version",
        nargs="?",
        default="",
        help="which (default: the newest approved before the champion)",
    )
    declare(back, rollback)


def approve(arguments: argparse.Namespace) -> int:
    """Approve a version and follow its rollout; exit 1 when the devices were rolled back."""
    return _decide(arguments, "Approved", override=arguments.override)


def reject(arguments: argparse.Namespace) -> int:
    """Reject a version."""
    return _decide(arguments, "Rejected", override=False)


def _decide(arguments: argparse.Namespace, approval: Approval, *, override: bool) -> int:
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud) as cloud:
        decided, ended = decide_on(
            cloud,
            wiring.fleet_clients(),
            wiring.registry(),
            arguments.version,
            approval,
            arguments.reason,
            override=override,
        )
    return _show(arguments.json, decided, ended)


def rollback(arguments: argparse.Namespace) -> int:
    """Roll out an earlier approved version; the champion's alias follows the devices."""
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud) as cloud:
        registry = wiring.registry()
        target = _target(registry.mlflow.versions(), arguments.version)
        fleet = signed_candidate(registry, target).fleet
        with devices_up(cloud, wiring.fleet_clients(), fleet):
            check_agents(registry.devices.fleet(fleet), fleet)
            begun = registry.rollouts.begin(
                target, by=registry.caller(), reason="rollback", forced=True, queue=False
            )
            ended = follow(cloud, registry, begun.rollout)
        decided = find(registry.mlflow.versions(target.name), target.version)
    return _show(arguments.json, decided, ended)


def _target(versions: list[Version], wanted: str) -> Version:
    """The version to roll back to: the wanted one, else the newest approved before the champion.

    Raises:
        UsageError: Several models have a champion, and none is named.
        RegistryError: There is no such version.

    """
    champions = [version for version in versions if version.champion]
    if not wanted and len(champions) > 1:
        names = ", ".join(version.name for version in champions)
        raise UsageError(
            f"Several models have a champion ({names}): name the version to roll back to."
        )
    named = find(versions, wanted) if wanted else None
    return rollback_target(versions, champions[0] if champions else None, named)


def _show(as_json: bool, decided: Version, rollout: Rollout | None) -> int:
    """Exit 1 when the model did not stay on the devices."""
    row = rollout_row(rollout) if rollout is not None else None
    champion = ", alias champion" if decided.champion else ""
    lines = [f"{decided.model_version} is {decided.approval}{champion}"]
    if rollout is not None:
        lines.append(rollout_text(rollout))
    answer(as_json, {**msgspec.to_builtins(decided), "rollout": row}, "\n".join(lines))
    return 1 if rollout is not None and rollout.state in DID_NOT_STAY else 0
