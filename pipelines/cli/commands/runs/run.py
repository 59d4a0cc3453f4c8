"""``mledgeops run APP``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge.training.app_bundle import load_app
from fl_runtime.run.records import RoundRecord, format_metrics
from pipelines.aws.deploy import Stacks
from pipelines.cli.commands.runs.flags import add_flags, given_flags, options_of
from pipelines.cli.output import say, show_json, table
from pipelines.desk import clouds
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.federate import STOP_SECONDS, federate
from pipelines.local.home import Home, locked
from pipelines.run.clients import run_clients
from pipelines.run.plan import RunPlan, plan
from pipelines.run.report import RunReport
from pipelines.run.resume import resumption
from pipelines.run.runner import Runner

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it (128 + SIGINT)."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("run", help="federate a Flower app as a pipeline")
    parser.add_argument("app", type=Path, nargs="?", help="the Flower app's folder")
    parser.add_argument(
        "--resume",
        default="",
        metavar="RUN",
        help="instead of an app: go on where this run ended, up to --rounds in all",
    )
    add_flags(parser)
    clouds.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Federate an app; exit 0 with a registered model, 1 when the run fails, 2 for bad usage."""
    if arguments.resume:
        _only_resume(arguments)
        with (
            clouds.use(arguments.cloud) as cloud,
            resumption(
                run_clients(cloud.deployment), arguments.resume, arguments.rounds or 0
            ) as the_plan,
        ):
            return _run(the_plan, arguments)
    if arguments.app is None:
        raise UsageError("Give the folder of a Flower app, or --resume RUN.")
    options = options_of(arguments, on_aws=_is_on_aws(arguments))
    return _run(plan(load_app(arguments.app), options), arguments)


def _run(the_plan: RunPlan, arguments: argparse.Namespace) -> int:
    start = run_on_aws if _is_on_aws(arguments) else run_locally
    return start(the_plan, as_json=arguments.json)


def _is_on_aws(arguments: argparse.Namespace) -> bool:
    return (arguments.cloud or os.environ.get(clouds.VARIABLE)) == "aws"


def _only_resume(arguments: argparse.Namespace) -> None:
    """A run goes on as it was: raises UsageError for an option that would change it."""
    if arguments.app is not None:
        raise UsageError("--resume goes on with the run as it was: leave an app out.")
    for name, entry in given_flags(arguments).items():
        if name != "rounds":
            raise UsageError(f"--resume goes on with the run as it was: leave {entry.flag} out.")
        entry.check(arguments.rounds)


def run_on_aws(the_plan: RunPlan, *, as_json: bool) -> int:
    """On the deployment in the environment's account, with the devices that are there."""
    with _terminable(), _checking(the_plan) as check, clouds.use("aws") as cloud:
        from fl_runtime.run.aws import client

        deployment = cloud.deployment
        status = Stacks(client("cloudformation"), client("s3"), deployment.code_bucket).status(
            deployment.stacks[-1]
        )
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise UsageError(
                f"MLEdgeOps is not deployed in account {deployment.account}, {deployment.region}: `mledgeops deploy --apply` does it."
            )
        _finish_check(check)
        runner = Runner(deployment, run_clients(deployment))
        started, interrupted = runner.start(the_plan), False
        if not as_json:
            say(f"pipeline {started.arn}")
        try:
            for record in runner.follow(started):
                if not as_json:
                    say(_line(record))
        except KeyboardInterrupt:
            runner.stop(started, STOP_SECONDS)
            interrupted = True
        report = runner.report(started)
    show_json(report.to_json()) if as_json else _show(report)
    return {"Succeeded": 0, "Stopped": INTERRUPTED if interrupted else 1}.get(report.status, 1)


def run_locally(the_plan: RunPlan, *, as_json: bool) -> int:
    """On this machine's local cloud: the one that runs, or one for this run only."""
    home = Home.default()

    def tell(text: str) -> None:
        if not as_json:
            say(text)

    with locked(
        home.root / "run.lock",
        f"A run is under way in {home.root}: wait for it, stop it, or set MLEDGEOPS_HOME to another folder.",
    ):
        tell(f"{the_plan.app.name}: {the_plan.rounds} rounds on {the_plan.devices} devices")
        with _terminable(), _checking(the_plan) as check, LocalCloud.use(home) as cloud:
            _finish_check(check)
            tell(f"local cloud ready; logs in {cloud.home.logs}")
            done = federate(
                cloud,
                the_plan,
                lambda arn: tell(f"pipeline {arn.split(':pipeline/')[1]}"),
                lambda record: tell(_line(record)),
                lambda: tell("stopping; once more Ctrl-C ends at once"),
            )
        show_json(done.report.to_json()) if as_json else _show(done.report)
        return {"Succeeded": 0, "Stopped": INTERRUPTED if done.interrupted else 1}.get(
            done.report.status, 1
        )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is handled as Ctrl-C is."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _checking(the_plan: RunPlan) -> Iterator[subprocess.Popen[str]]:
    """Import the app in a process of its own while the cloud starts."""
    parameters = msgspec.json.encode(the_plan.options.strategy_params()).decode()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fl_runtime.server.apps.check_app",
            str(the_plan.app.folder),
            the_plan.options.strategy,
            parameters,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _finish_check(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode == 0:
        return
    lines = [line for line in (errors or "").splitlines() if line.strip()]
    raise UsageError(
        lines[-1] if lines else f"The app's check ended with code {process.returncode}."
    )


def _line(record: RoundRecord) -> str:
    failures = f"  failures {dict(record.failures)}" if record.failures else ""
    seconds = record.seconds
    cost = (
        f"({record.participants} devices, {seconds.total:.1f} s, overhead {seconds.overhead:.2f} s)"
    )
    return f"round {record.round}: {format_metrics(record)}  {cost}{failures}"


def _show(report: RunReport) -> None:
    for name, columns in report.tables.items():
        say(f"\n{name}")
        say(table(list(columns), list(zip(*columns.values(), strict=True))))
    say()
    if report.status != "Succeeded":
        say(f"{report.status}: {report.reason}")
        if report.run_id:
            say(f"logs: mledgeops logs {report.run_id}")
        return
    say(
        f"Succeeded in {report.seconds:.0f} s: {report.metric} {report.value:.4g}"
        + (f"; {report.ended}" if report.ended else "")
    )
    rows = [
        ("run", report.run_id),
        ("MLflow run", report.mlflow_run_id),
        ("model version", report.model_version),
        ("model package", report.model_package_arn),
        ("approval", report.approval),
        ("pipeline execution", report.pipeline_execution_arn),
        ("state machine execution", report.execution_arn),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {name.ljust(width)}  {value}")
    say(
        f'\nlook at it with: mledgeops card {report.model_version}\napprove it with: mledgeops approve {report.model_version} --reason "..."'
    )
