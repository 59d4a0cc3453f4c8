"""``mledgeops doctor``: what would keep a run from working, and what mends it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge.training.app_bundle import load_app
from pipelines.cli.commands.runs.app_check import checking, finish
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds, doctor
from pipelines.desk.doctor import Symptom, looked_at
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor")
    parser.add_argument("--app", type=Path, help="a Flower app's folder, to look at as well")
    declare(parser, examine)


def examine(arguments: argparse.Namespace) -> int:
    """Exit 0 when nothing failed, 1 when something did."""
    home = Home.default()
    found = looked_at("environment", "", lambda: doctor.environment(home))
    if clouds.chosen(arguments.cloud) == "aws":
        found += looked_at("AWS", "aws sso login, or set AWS_PROFILE and AWS_REGION", doctor.aws)
        if not any(finding.level == "failure" for finding in found):
            found += looked_at("fleet", "mledgeops fleet --cloud aws", lambda: _fleet("aws"))
    else:
        found += looked_at("local cloud", "mledgeops local down", lambda: doctor.local_cloud(home))
        if LocalCloud.attach(home) is not None:
            found += looked_at("fleet", "mledgeops fleet", lambda: _fleet("local"))
    if arguments.app is not None:
        found += looked_at("app", f"mledgeops check {arguments.app}", lambda: _app(arguments.app))
    document = {"findings": [msgspec.to_builtins(finding) for finding in found]}
    answer(arguments.json, document, findings_text(found))
    return int(any(finding.level == "failure" for finding in found))


def findings_text(found: list[Symptom]) -> str:
    """A line for each finding, and below it what mends it."""
    width = max(len(finding.what) for finding in found)
    lines = []
    for finding in found:
        lines.append(f"{finding.level:<8} {finding.what:<{width}}  {finding.says}")
        if finding.mend:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.mend}")
    return "\n".join(lines)


def _fleet(cloud: str) -> Iterator[Symptom]:
    with clouds.use(cloud) as used:
        yield from doctor.fleet(used.deployment)


def _app(folder: Path) -> Iterator[Symptom]:
    with checking(plan(load_app(folder), RunOptions())) as process:
        found = finish(process)
    yield Symptom("ok", "app", f"{found['app']} {found['version']} can run")
