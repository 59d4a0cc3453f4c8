"""``mledgeops models | card``: the registered versions, and the evidence for one of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.cli.options import VERSION_HELP, declare
from pipelines.cli.output import answer, say, show_json, table
from pipelines.desk import clouds, wiring
from pipelines.errors import UsageError
from pipelines.local.home import Home
from registry.approval import find
from registry.evidence.prechecks import Check, failed
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import Version

NO_MODELS = "no models yet: `mledgeops run APP` makes one"


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    declare(commands.add_parser("models"), list_models)
    card = commands.add_parser("card")
    card.add_argument("version", help=VERSION_HELP)
    card.add_argument(
        "--out",
        type=Path,
        default=None,
        help="the page to write (default: cards/NAME-NUMBER.html in the home folder)",
    )
    declare(card, show_card)


def list_models(arguments: argparse.Namespace) -> int:
    """All versions, newest first."""
    with clouds.use_store(arguments.cloud) as exists:
        versions = MlflowRegistry(mlflow_client()).versions() if exists else []
    document = {"models": [msgspec.to_builtins(version) for version in versions]}
    answer(arguments.json, document, models_text(versions) if versions else NO_MODELS)
    return 0


def models_text(versions: list[Version]) -> str:
    """Versions as a table."""
    columns = ["model", "version", "approval", "alias", "metric", "value", "prechecks", "run"]
    rows = [
        [
            version.name,
            version.version,
            version.approval,
            "champion" if version.champion else "",
            version.metric,
            version.value,
            version.checks.partition(":")[0] or "none",
            version.run,
        ]
        for version in versions
    ]
    return table(columns, rows)


def show_card(arguments: argparse.Namespace) -> int:
    """Write the page; exit 1 when prechecks fail by the policy in force now."""
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud):
        registry = wiring.registry()
        version = find(registry.mlflow.versions(), arguments.version)
        evidence = registry.candidates.evidence(version)
        checks = registry.candidates.checks(version)
    if evidence is None:
        raise UsageError(
            f"{version.model_version} was registered without an evidence pack, so it has no card."
        )
    code = 1 if failed(checks) else 0
    if arguments.json:
        built = [msgspec.to_builtins(item) for item in checks]
        show_json({"evidence": msgspec.to_builtins(evidence), "checks": built})
        return code
    from registry.evidence.card import page  # it draws charts

    out = arguments.out or Home.default().root / "cards" / f"{version.name}-{version.version}.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(evidence, checks))
    say(f"{checks_text(checks)}\n\n{out}")
    return code


def checks_text(checks: list[Check]) -> str:
    """Prechecks as a table."""
    rows = [["pass" if item.passed else "FAIL", item.name, item.message] for item in checks]
    return table(["", "precheck", ""], rows)


def check_store(cloud: str) -> None:
    """Check that there are models at all, before a local cloud is started for them.

    Raises:
        UsageError: The local home has no MLflow store yet.

    """
    with clouds.use_store(cloud) as exists:
        if not exists:
            raise UsageError(
                f"There are no models in {Home.default().root}: `mledgeops run APP` makes one."
            )
