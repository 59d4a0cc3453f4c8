"""Runs a plan on either cloud and shows its rounds, until it has ended or the user stops it."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from fl_runtime.run.aws import client
from pipelines.cli import INTERRUPTED
from pipelines.cli.commands.runs.app_check import checking, finish
from pipelines.cli.commands.runs.report_text import report_text, round_text
from pipelines.cli.options import declare
from pipelines.cli.output import answer, say, warn
from pipelines.desk import clouds, wiring
from pipelines.desk.notebook.connect import connect
from pipelines.desk.notebook.start import start
from pipelines.desk.turns import take_turn, turn
from pipelines.local.cloud import local_cloud
from pipelines.local.federate import STOP_SECONDS, Progress, federate
from pipelines.local.home import Home
from pipelines.run.plan import RunPlan
from pipelines.run.report import RunReport

QUEUE = "--queue"


def run_on_aws(plan: RunPlan, *, as_json: bool) -> int:
    """Run on the deployment in the environment's account, with the devices that it has."""
    with _sigterm_interrupts(), checking(plan) as check, clouds.use("aws") as cloud:
        clouds.check_deployed(cloud.deployment, client)
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


def run_locally(plan: RunPlan, *, queue: bool, as_json: bool) -> int:
    """Run on the local cloud: the one that is running, or one for this run only.

    ``queue``: wait while another run is under way on the fleet; otherwise it is refused.
    """
    home = Home.default()

    def tell(text: str) -> None:
        _progress(text, as_json=as_json)

    with turn(home.fleet_turn(plan.fleet), plan.fleet, QUEUE, wait=queue):
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
            take_turn(wiring.run_clients(cloud.deployment), plan.fleet, QUEUE, wait=queue)
            clients, runner = wiring.fleet_clients(), wiring.runner(cloud.deployment)
            done = federate(cloud, clients, runner, plan, progress)
        return _ended(done.report, interrupted=done.interrupted, as_json=as_json)


def _notify(description: dict[str, Any]) -> None:
    """Tell the user what of the app has no effect here."""
    for notice in description.get("notices", []):
        warn(notice)


def run_detached(plan: RunPlan, cloud: str, *, queue: bool, as_json: bool) -> int:
    """Start a run that goes on without this process; exit 0 once it has begun or is queued."""
    with checking(plan) as check:
        desk = connect(clouds.chosen(cloud))
        _notify(finish(check))
        run = start(desk.door, plan, queue=queue, how=QUEUE)
        status, error = run.status, run.error
    document = {"run_id": run.id, "status": status, **({"reason": error} if error else {})}
    text = f"{run.id}: {status}\nfollow it with: mledgeops attach {run.id}"
    answer(as_json, document, f"{status}: {error}" if error else text)
    return 1 if error else 0


def attach(arguments: argparse.Namespace) -> int:
    """Follow a run until it has ended; Ctrl-C leaves it going."""
    run = connect(clouds.chosen(arguments.cloud)).attach(arguments.run)
    as_json: bool = arguments.json
    for record in run.follow():
        _progress(round_text(record), as_json=as_json)
    return _ended(run.report, interrupted=False, as_json=as_json)


def add_parser(commands: Any) -> None:
    """Declare ``attach``."""
    parser = commands.add_parser("attach")
    parser.add_argument("run", help="the run's id, or that of its place in the queue")
    declare(parser, attach)


def _progress(text: str, *, as_json: bool) -> None:
    if not as_json:
        say(text)


def _ended(report: RunReport, *, interrupted: bool, as_json: bool) -> int:
    """Show the report. Exit 0 with a registered model, 130 after Ctrl-C, else 1."""
    answer(as_json, report.to_json(), report_text(report))
    if report.status == "Succeeded":
        return 0
    return INTERRUPTED if interrupted and report.status == "Stopped" else 1


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
