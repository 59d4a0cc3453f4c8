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
from fl_runtime.run.records import RoundRecord, metrics_text
from pipelines.aws.deploy import Stacks
from pipelines.cli.output import say, show_json, table
from pipelines.desk import clouds
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.federate import STOP_SECONDS, federate
from pipelines.local.home import Home, locked
from pipelines.run.options import RunOptions, RunPlan, parse_settings, plan
from pipelines.run.resume import resumption
from pipelines.run.runner import Runner, RunReport

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
    parser.add_argument(
        "--devices",
        type=int,
        default=None,
        help="how many devices (default: the app's num-devices, else 4)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=None,
        help="rounds of training (default: the app's num-server-rounds, else 3)",
    )
    parser.add_argument(
        "--devices-per-proxy",
        type=int,
        default=100,
        help="devices a proxy serves; 0: the server does it itself (default 100)",
    )
    parser.add_argument(
        "--strategy",
        default="",
        help="a stock Flower strategy, such as FedAvg, FedProx, FedAdam, Krum (default: the app's)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="the app's run configuration, or strategy.PARAMETER",
    )
    parser.add_argument("--metric", default="", help="the evaluate metric that judges the model")
    parser.add_argument("--goal", default="", help="minimize or maximize the metric")
    parser.add_argument(
        "--minimum-score",
        type=float,
        default=None,
        help="the score a model must reach to be registered",
    )
    parser.add_argument(
        "--fleet", default="", help="the fleet's name (default: from the app's name)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the server's random choices")
    add_round_options(parser)
    parser.add_argument(
        "--phase-seconds", type=float, default=600.0, help="seconds the devices have for one phase"
    )
    parser.add_argument(
        "--deadline-seconds",
        type=float,
        default=300.0,
        help="seconds the run waits for enough devices",
    )
    clouds.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=run)


def add_round_options(parser: argparse.ArgumentParser) -> None:
    """How a round is made, and when the run ends."""
    add = parser.add_argument
    add("--quorum", type=int, default=1, help="valid updates that a round needs (default 1)")
    add(
        "--quorum-fraction",
        type=float,
        default=0.0,
        help="the same as a share of the devices that a round wants, 0 to 1",
    )
    add(
        "--over-selection",
        type=float,
        default=1.3,
        help="ask so many times the devices that a round wants; the first to answer count (default 1.3)",
    )
    add(
        "--selection",
        default="",
        help="random, least-seen or stratified:LABEL (default: as the strategy does)",
    )
    add(
        "--require",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="idle=true, power=mains, free-memory=MIB, or a device's label",
    )
    add(
        "--target",
        type=float,
        default=None,
        help="end early once the metric has reached this value",
    )
    add(
        "--max-seconds",
        type=float,
        default=0.0,
        help="end with the best model before the rounds take longer (default: any)",
    )
    add(
        "--max-cost",
        type=float,
        default=0.0,
        help="end with the best model before the rounds cost more, in USD as estimated (default: any)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Federate an app; exit 0 with a registered model, 1 when the run fails, 2 for bad usage."""
    if arguments.resume:
        _only_resume(arguments)
        with (
            clouds.use(arguments.cloud) as cloud,
            resumption(cloud.deployment, arguments.resume, arguments.rounds or 0) as the_plan,
        ):
            return _run(the_plan, arguments)
    if arguments.app is None:
        raise UsageError("Give the folder of a Flower app, or --resume RUN.")
    return _run(plan(load_app(arguments.app), _options(arguments)), arguments)


def _run(the_plan: RunPlan, arguments: argparse.Namespace) -> int:
    if (arguments.cloud or os.environ.get(clouds.VARIABLE)) == "aws":
        return run_on_aws(the_plan, as_json=arguments.json)
    return run_locally(the_plan, as_json=arguments.json)


def _only_resume(arguments: argparse.Namespace) -> None:
    """A run goes on as it was: raises UsageError for an option that would change it."""
    if arguments.rounds is not None and arguments.rounds < 1:
        raise UsageError(
            f"--rounds is {arguments.rounds}; it must be a whole number of at least 1."
        )
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    unchanged = parser.parse_args(["run"])
    for name, value in vars(arguments).items():
        if name not in ("resume", "rounds", "cloud", "json", "command") and value != getattr(
            unchanged, name, value
        ):
            option = "an app" if name == "app" else "--" + name.replace("_", "-")
            raise UsageError(f"--resume goes on with the run as it was: leave {option} out.")


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
        runner = Runner(deployment)
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
            "fl_runtime.server.check_app",
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


def _options(arguments: argparse.Namespace) -> RunOptions:
    for name in ("devices", "rounds"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be a whole number of at least 1.")
    extra = {} if arguments.minimum_score is None else {"minimum_score": arguments.minimum_score}
    return RunOptions(
        devices=arguments.devices or 0,
        rounds=arguments.rounds or 0,
        devices_per_proxy=arguments.devices_per_proxy,
        strategy=arguments.strategy,
        settings=parse_settings(arguments.set),
        metric=arguments.metric,
        goal=arguments.goal,
        fleet=arguments.fleet,
        seed=arguments.seed,
        phase_seconds=arguments.phase_seconds,
        deadline_seconds=arguments.deadline_seconds,
        quorum=arguments.quorum,
        quorum_fraction=arguments.quorum_fraction,
        over_selection=arguments.over_selection,
        selection=arguments.selection,
        require=parse_settings(arguments.require, "--require"),
        target=arguments.target,
        max_seconds=arguments.max_seconds,
        max_cost=arguments.max_cost,
        **extra,
    )


def _line(record: RoundRecord) -> str:
    failures = f"  failures {dict(record.failures)}" if record.failures else ""
    seconds = record.seconds
    cost = (
        f"({record.participants} devices, {seconds.total:.1f} s, overhead {seconds.overhead:.2f} s)"
    )
    return f"round {record.round}: {metrics_text(record)}  {cost}{failures}"


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
