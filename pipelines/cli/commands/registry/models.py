"""``mledgeops models | card | approve | reject | rollback``."""

from __future__ import annotations

import argparse
import getpass
import os
from pathlib import Path
from typing import Any

import msgspec

from pipelines.cli.output import say, show_json, table
from pipelines.desk import clouds
from pipelines.desk.decisions import decide_on, devices_up, follow
from pipelines.errors import UsageError
from pipelines.local.home import Home
from registry.model_version import Approval, Version
from registry.rollout.model import Rollout


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    listing = commands.add_parser("models", help="list model versions")
    listing.set_defaults(function=list_models)
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    card = commands.add_parser(
        "card", help="show the model card that an approver judges a version by"
    )
    card.add_argument("version", help="a version number, NAME/NUMBER, or the model package's ARN")
    card.add_argument(
        "--out",
        type=Path,
        default=None,
        help="the page to write (default: cards/NAME-NUMBER.html in the home folder)",
    )
    card.add_argument(
        "--json",
        action="store_true",
        help="print the evidence and the pre-checks as one JSON document",
    )
    card.set_defaults(function=show_card)
    for name, function, text in (
        ("approve", approve, "approve a version: it goes to the fleet"),
        ("reject", reject, "reject a version"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.add_argument(
            "version", help="a version number, NAME/NUMBER, or the model package's ARN"
        )
        parser.add_argument(
            "--reason", required=True, help="why; kept in both registries and in the audit trail"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)
        if name == "approve":
            parser.add_argument(
                "--override",
                action="store_true",
                help="approve although pre-checks fail; kept with the reason",
            )
    back = commands.add_parser("rollback", help="make an earlier approved version champion again")
    back.add_argument(
        "version",
        nargs="?",
        default="",
        help="which (default: the newest approved before the champion)",
    )
    back.add_argument("--json", action="store_true", help="print one JSON document")
    back.set_defaults(function=rollback)


def list_models(arguments: argparse.Namespace) -> int:
    """All versions, newest first."""
    from fl_runtime.run.mlflow_runs import mlflow_client
    from registry.mlflow_registry import MlflowRegistry

    use_store()
    versions = MlflowRegistry(mlflow_client()).versions()
    if arguments.json:
        show_json({"models": [msgspec.to_builtins(version) for version in versions]})
    elif not versions:
        say("no models yet: `mledgeops run APP` makes one")
    else:
        rows = [
            [
                v.name,
                v.version,
                v.approval,
                "champion" if v.champion else "",
                v.score,
                v.checks.partition(":")[0] or "none",
                v.run,
            ]
            for v in versions
        ]
        say(table(["model", "version", "approval", "alias", "score", "pre-checks", "run"], rows))
    return 0


def show_card(arguments: argparse.Namespace) -> int:
    """Write the page; exit 1 when pre-checks fail by the policy in force now."""
    from fl_runtime.run.mlflow_runs import mlflow_client
    from registry.approval import find
    from registry.evidence.prechecks import failed
    from registry.mlflow_registry import MlflowRegistry

    use_store()
    version = find(MlflowRegistry(mlflow_client()).versions(), arguments.version)
    with clouds.use():
        from pipelines.desk.registry import open_registry

        registry = open_registry()
        evidence, checks = (
            registry.candidates.evidence(version),
            registry.candidates.checks(version),
        )
    if evidence is None:
        raise UsageError(
            f"{version.model_version} was registered without an evidence pack, so it has no card."
        )
    if arguments.json:
        show_json(
            {
                "evidence": msgspec.to_builtins(evidence),
                "checks": [msgspec.to_builtins(item) for item in checks],
            }
        )
        return 1 if failed(checks) else 0
    from registry.evidence.card import page

    out = arguments.out or Home.default().root / "cards" / f"{version.name}-{version.version}.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(evidence, checks))
    say(
        table(
            ["", "pre-check", ""],
            [["pass" if item.passed else "FAIL", item.name, item.message] for item in checks],
        )
    )
    say(f"\n{out}")
    return 1 if failed(checks) else 0


def approve(arguments: argparse.Namespace) -> int:
    """Approve: the version goes to the canary, then in waves to the fleet, and becomes champion; or
    it comes back.
    """
    return _decide(arguments, "Approved")


def reject(arguments: argparse.Namespace) -> int:
    """Reject."""
    return _decide(arguments, "Rejected")


def rollback(arguments: argparse.Namespace) -> int:
    """Back to an approved version: the devices follow, then the alias; nothing is registered anew."""
    from fl_runtime.run.mlflow_runs import mlflow_client
    from registry.approval import find
    from registry.mlflow_registry import MlflowRegistry
    from registry.promotion import rollback_target

    use_store()
    mlflow = MlflowRegistry(mlflow_client())
    versions = mlflow.versions()
    champions = [version for version in versions if version.champion]
    if not arguments.version and len(champions) > 1:
        raise UsageError(
            f"Several models have a champion ({', '.join(v.name for v in champions)}): name the version to go back to."
        )
    wanted = find(versions, arguments.version) if arguments.version else None
    target = rollback_target(versions, champions[0] if champions else None, wanted)
    with clouds.use() as cloud:
        from pipelines.desk.registry import open_registry

        registry = open_registry()
        with devices_up(cloud, registry.candidates.of(target).fleet):
            begun = registry.rollouts.begin(
                target, by=getpass.getuser(), reason="rollback", forced=True, queue=False
            )
            ended = follow(cloud, registry, begun.rollout)
    return _show_decided(arguments.json, find(mlflow.versions(target.name), target.version), ended)


def _decide(arguments: argparse.Namespace, approval: Approval) -> int:
    use_store()
    with clouds.use() as cloud:
        decided, ended = decide_on(
            cloud,
            arguments.version,
            approval,
            arguments.reason,
            override=getattr(arguments, "override", False),
        )
    return _show_decided(arguments.json, decided, ended)


def _show_decided(as_json: bool, decided: Version, rollout: Rollout | None) -> int:
    """Exit 1 when the model did not stay on the devices."""
    if as_json:
        show_json(
            {
                **msgspec.to_builtins(decided),
                "rollout": rollout_row(rollout) if rollout is not None else None,
            }
        )
    else:
        say(
            f"{decided.model_version} is {decided.approval}"
            + (", alias champion" if decided.champion else "")
        )
        if rollout is not None:
            say(rollout_text(rollout))
    return 1 if rollout is not None and rollout.state in ("TurningBack", "RolledBack") else 0


def rollout_row(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON shows it."""
    return {
        "fleet": rollout.fleet,
        "number": rollout.number,
        "model_version": rollout.model_version,
        "state": rollout.state,
        "by": rollout.by,
        "reason": rollout.reason,
        "why": rollout.why,
        "waves": [len(wave.devices) for wave in rollout.waves],
        "switched": rollout.switched,
        "waiting": rollout.waiting,
        "failures": rollout.failures,
        "jobs": [job for wave in rollout.waves for job in wave.jobs],
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
    }


def rollout_text(rollout: Rollout) -> str:
    """A rollout in a line, and its failures below."""
    waves = " + ".join(str(len(wave.devices)) for wave in rollout.waves) or "no"
    took = f" in {rollout.ended_at - rollout.started_at:.0f} s" if rollout.ended_at else ""
    line = f"rollout {rollout.number} of {rollout.model_version} to fleet {rollout.fleet}: {rollout.state}{took}"
    counts = f"  asked {waves} devices: {rollout.switched} switched, {len(rollout.failures)} refused, {rollout.waiting} to come"
    failures = [
        f"    {device}: {reason}" for device, reason in sorted(rollout.failures.items())[:10]
    ]
    return "\n".join([line, counts, *([f"  {rollout.why}"] if rollout.why else []), *failures])


def use_store() -> None:
    """MLflow's store of the local home, unless the environment names another or the cloud is AWS."""
    if os.environ.get(clouds.VARIABLE) == "aws":
        os.environ.setdefault(
            "MLFLOW_TRACKING_URI", clouds.AwsCloud.of_environment().deployment.mlflow_arn
        )
        return
    home = Home.default()
    os.environ.setdefault("MLFLOW_TRACKING_URI", home.mlflow_uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if (
        os.environ["MLFLOW_TRACKING_URI"] == home.mlflow_uri
        and not (home.root / "mlflow.db").is_file()
    ):
        raise UsageError(f"There are no models in {home.root}: `mledgeops run APP` makes one.")
