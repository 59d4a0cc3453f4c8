"""``mledgeops logs | stop``: a run's log lines, and the end of a run under way."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from fl_runtime.run.aws import client
from fl_runtime.run.state import TERMINAL_STATES
from pipelines.cli.options import declare
from pipelines.cli.output import answer, say, show_json
from pipelines.desk import clouds, wiring
from pipelines.desk.lost_runs import settle
from pipelines.desk.run_logs import LEVELS, LogLine, in_order, local_lines, log_text, run_lines
from pipelines.desk.runs import check_run_id
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home
from pipelines.run.executions import Executions


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    logs = commands.add_parser("logs")
    logs.add_argument("run", help="the run's id")
    logs.add_argument(
        "--level",
        type=str.upper,
        choices=LEVELS,
        default="DEBUG",
        help="only lines of this level and above",
    )
    declare(logs, print_logs)
    stop = commands.add_parser("stop")
    stop.add_argument("run", help="the run's id")
    declare(stop, stop_run)


def print_logs(arguments: argparse.Namespace) -> int:
    """The log of a run's server and proxies in time's order; ``--json``: the raw lines by task."""
    run = check_run_id(arguments.run)
    found = [line for line in _lines(run, arguments.cloud) if line.is_at_least(arguments.level)]
    if arguments.json:
        raw = raw_by_task(found)
        show_json({f"{run}-{task}": lines for task, lines in raw.items()})
        return 0
    for line in in_order(iter(found)):
        say(log_text(line))
    return 0


def stop_run(arguments: argparse.Namespace) -> int:
    """Stop the pipeline execution of a run."""
    run = check_run_id(arguments.run)
    if clouds.chosen(arguments.cloud) == "local" and LocalCloud.attach(Home.default()) is None:
        raise UsageError(f"No local cloud is running, so the run {run} is not under way.")
    with clouds.use(arguments.cloud) as cloud:
        clients = wiring.run_clients(cloud.deployment)
        state = clients.runs.get(run)
        if state is None or state.state in TERMINAL_STATES:
            raise UsageError(
                f"The run {run} is not under way ({state.state if state else 'unknown'})."
            )
        if settle(clients, run):
            text = f"{run} had ended with its cloud: it is recorded as failed"
            answer(arguments.json, {"run_id": run, "status": "Failed"}, text)
            return 0
        Executions(client("sagemaker")).stop(state.pipeline_execution_arn)
    answer(arguments.json, {"run_id": run, "status": "Stopping"}, f"stopping {run}")
    return 0


def raw_by_task(lines: Iterable[LogLine]) -> dict[str, list[str]]:
    """Lines as they were written, in their order, by task."""
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(line.task, []).append(line.raw)
    return found


def _lines(run: str, cloud: str) -> list[LogLine]:
    if clouds.chosen(cloud) == "local":
        return list(local_lines(Home.default().logs, run))
    with clouds.use(cloud) as aws:
        deployment = aws.deployment
        return list(run_lines(run, deployment, client, wiring.run_clients(deployment), None))
