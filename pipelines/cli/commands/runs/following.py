"""Runs a plan on either cloud and shows its rounds, until it has ended or the user stops it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from fl_runtime.run.aws import client
from pipelines.aws.deploy import Stacks
from pipelines.cli import INTERRUPTED
from pipelines.cli.commands.runs.app_check import checking, finish
from pipelines.cli.commands.runs.report_text import report_text, round_text
from pipelines.cli.output import answer, say, warn
from pipelines.deployment import Deployment
from pipelines.desk import clouds, wiring
from pipelines.errors import UsageError
from pipelines.local.cloud import local_cloud
from pipelines.local.federate import STOP_SECONDS, Progress, federate
from pipelines.local.home import Home, locked
from pipelines.run.plan import RunPlan
from pipelines.run.report import RunReport


def run_on_aws(plan: RunPlan, *, as_json: bool) -> int:
    """Run on the deployment in the environment's account, with the devices that it has."""
    with _sigterm_interrupts(), checking(plan) as check, clouds.use("aws") as cloud:
        _check_deployed(cloud.deployment)
        _notify(finish(check))
        runner, interrupted = wiring.runner(cloud.deployment), False
        started = runner.start(plan)
        _progress(f"pipeline {started.arn}", as_json=as_json)
        try:
            for record in runner.follow(started):
                _progress(round_text(record), as_json=as_json)
        except KeyboardInterrupt:
            runner.stop(started, STOP_SECONDS)
            interrupted = True
        report = runner.report(started)
    return _ended(report, interrupted=interrupted, as_json=as_json)


def run_locally(plan: RunPlan, *, as_json: bool) -> int:
    """Run on the local cloud: the one that is running, or one for this run only."""
    home = Home.default()
    busy = (
        f"A run is under way in {home.root}: wait for it, stop it, or set MLEDGEOPS_HOME "
        "to another folder."
    )

    def tell(text: str) -> None:
        _progress(text, as_json=as_json)

    with locked(home.root / "run.lock", busy):
        tell(f"{plan.app.name}: {plan.rounds} rounds on {plan.devices} devices")
        with _sigterm_interrupts(), checking(plan) as check, local_cloud(home) as cloud:
            _notify(finish(check))
            tell(f"local cloud ready; logs in {cloud.home.logs}")
            progress = Progress(
                on_start=lambda arn: tell(f"pipeline {arn.split(':pipeline/')[1]}"),
                on_round=lambda record: tell(round_text(record)),
                on_stop=lambda: tell("stopping; Ctrl-C again ends at once"),
                on_notice=warn,
            )
            clients, runner = wiring.fleet_clients(), wiring.runner(cloud.deployment)
            done = federate(cloud, clients, runner, plan, progress)
        return _ended(done.report, interrupted=done.interrupted, as_json=as_json)


def _notify(description: dict[str, Any]) -> None:
    """Tell the user what of the app has no effect here."""
    for notice in description.get("notices", []):
        warn(notice)


def _progress(text: str, *, as_json: bool) -> None:
    if not as_json:
        say(text)


def _ended(report: RunReport, *, interrupted: bool, as_json: bool) -> int:
    """Show the report. Exit 0 with a registered model, 130 after Ctrl-C, else 1."""
    answer(as_json, report.to_json(), report_text(report))
    if report.status == "Succeeded":
        return 0
    return INTERRUPTED if interrupted and report.status == "Stopped" else 1


def _check_deployed(deployment: Deployment) -> None:
    stacks = Stacks(client("cloudformation"), client("s3"), deployment.code_bucket)
    if stacks.status(deployment.stacks[-1]) not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise UsageError(
            f"MLEdgeOps is not deployed in account {deployment.account}, {deployment.region}: "
            "`mledgeops deploy --apply` deploys it."
        )


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C while the block lasts, so that the run is stopped in order."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
