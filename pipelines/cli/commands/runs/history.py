"""``mledgeops runs | show | logs | stop``: what ran, from MLflow, which is there without a cloud."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipelines.cli.output import say, show_json, table
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home

TAG = "mledgeops."


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    runs = commands.add_parser("runs", help="list runs")
    show = commands.add_parser("show", help="show one run")
    logs = commands.add_parser("logs", help="print a run's logs")
    stop = commands.add_parser("stop", help="stop a run under way")
    for parser, function in (
        (runs, list_runs),
        (show, show_run),
        (logs, print_logs),
        (stop, stop_run),
    ):
        if parser is not runs:
            parser.add_argument("run", help="the run's id")
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def list_runs(arguments: argparse.Namespace) -> int:
    """All runs, newest first."""
    found = [_summary(run) for run in _search("")]
    if arguments.json:
        show_json({"runs": found})
    elif not found:
        say("no runs yet: start one with `mledgeops run APP`")
    else:
        columns = ["run_id", "app", "status", "devices", "rounds", "started"]
        say(table(["run", *columns[1:]], [[row[name] for name in columns] for row in found]))
    return 0


def show_run(arguments: argparse.Namespace) -> int:
    """One run with its rounds."""
    run = _one(arguments.run)
    summary = _summary(run)
    rounds = _rounds(run)
    if arguments.json:
        show_json({**summary, "rounds": rounds})
        return 0
    for key, value in summary.items():
        say(f"{key.ljust(24)}{value}")
    names = sorted({name for record in rounds for name in record if name.startswith("evaluate.")})
    columns = ["round", *names, "participants", "seconds.total", "seconds.overhead"]
    say()
    say(table(columns, [[record.get(name) for name in columns] for record in rounds]))
    return 0


def print_logs(arguments: argparse.Namespace) -> int:
    """The logs of a run's server and proxies, in time's order within each."""
    files = sorted(Home.default().logs.glob(f"{_safe(arguments.run)}-*.log"))
    if not files:
        raise UsageError(
            f"There are no logs of {arguments.run} in {Home.default().logs}: `mledgeops runs` lists the runs."
        )
    if arguments.json:
        show_json({file.stem: file.read_text(errors="replace").splitlines() for file in files})
        return 0
    for file in files:
        for line in file.read_text(errors="replace").splitlines():
            say(f"{file.stem.removeprefix(arguments.run + '-')}: {line}")
    return 0


def stop_run(arguments: argparse.Namespace) -> int:
    """Stop the pipeline execution of a run."""
    cloud = LocalCloud.attach(Home.default())
    if cloud is None:
        raise UsageError(f"No local cloud is running, so the run {arguments.run} is not under way.")
    with cloud.reached():
        from fl_runtime.run.aws import client
        from fl_runtime.run.state import TERMINAL_STATES, RunTable

        state = RunTable(client("dynamodb"), cloud.deployment.runs_table).get(arguments.run)
        if state is None or state.state in TERMINAL_STATES:
            raise UsageError(
                f"The run {arguments.run} is not under way ({state.state if state else 'unknown'})."
            )
        client("sagemaker").stop_pipeline_execution(
            PipelineExecutionArn=state.pipeline_execution_arn, ClientRequestToken="s" * 32
        )
    show_json({"run_id": arguments.run, "status": "Stopping"}) if arguments.json else say(
        f"stopping {arguments.run}"
    )
    return 0


def _safe(run: str) -> str:
    if not run.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"{run!r} is not a run's id.")
    return run


def _client() -> Any:
    os.environ.setdefault("MLFLOW_TRACKING_URI", Home.default().mlflow_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if (
        not (Home.default().root / "mlflow.db").is_file()
        and os.environ["MLFLOW_TRACKING_URI"] == Home.default().mlflow_uri
    ):
        raise UsageError(
            f"There are no runs in {Home.default().root}: start one with `mledgeops run APP`."
        )
    from mlflow import MlflowClient

    return MlflowClient()


def _search(query: str) -> list[Any]:
    client = _client()
    experiments = [item.experiment_id for item in client.search_experiments()]
    condition = "tags.`mledgeops.run_id` != ''" + (f" and {query}" if query else "")
    return list(client.search_runs(experiments, condition, order_by=["attributes.start_time DESC"]))


def _one(run: str) -> Any:
    found = _search(f"tags.`mledgeops.run_id` = '{_safe(run)}'")
    if not found:
        raise UsageError(f"There is no run {run!r}: `mledgeops runs` lists them.")
    return found[0]


def _summary(run: Any) -> dict[str, Any]:
    import datetime

    tags = {
        key.removeprefix(TAG): value for key, value in run.data.tags.items() if key.startswith(TAG)
    }
    started = datetime.datetime.fromtimestamp(run.info.start_time / 1000, datetime.UTC)
    summary = {
        "run_id": tags.get("run_id", ""),
        "app": tags.get("app", ""),
        "status": tags.get("status", "Running"),
        "devices": tags.get("devices", ""),
        "rounds": run.data.params.get("num_rounds", ""),
        "started": started.isoformat(timespec="seconds"),
        "mlflow_run_id": run.info.run_id,
        "pipeline_execution_arn": tags.get("pipeline_execution_arn", ""),
    }
    return summary | ({"reason": tags["reason"]} if "reason" in tags else {})


def _rounds(run: Any) -> list[dict[str, float]]:
    client = _client()
    rounds: dict[int, dict[str, float]] = {}
    for key in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, key):
            rounds.setdefault(point.step, {"round": point.step})[key] = point.value
    return [rounds[number] for number in sorted(rounds)]
