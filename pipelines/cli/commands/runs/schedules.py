"""``mledgeops schedule add | list | remove``: EventBridge Scheduler starts an app's pipeline."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client, fresh_seconds
from fl_runtime.run.devices import DeviceTable
from pipelines.cli.commands.runs.flags import add_flags, options_of
from pipelines.cli.options import declare
from pipelines.cli.output import answer, moment, table
from pipelines.deployment import Deployment
from pipelines.desk import clouds, wiring
from pipelines.errors import UsageError
from pipelines.run.firings import check_fires, last_due, next_firings
from pipelines.run.plan import RunPlan, plan
from pipelines.run.publication import publish

_EXPRESSION = re.compile(
    r"(rate\(\d+ (minute|minutes|hour|hours|day|days)\)"
    r"|cron\([^()]+\)"
    r"|at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\))"
)
GRACE_SECONDS = 60.0
"""A moment that has just passed fires at once."""
LATE_SECONDS = 120.0
"""How late a schedule may start its pipeline."""
LOCAL = "  it fires while the local cloud is on; `mledgeops schedule list` names a firing missed"
_NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    schedule = commands.add_parser("schedule").add_subparsers(
        dest="action", required=True, metavar="add|list|remove"
    )
    adding = schedule.add_parser("add", help="add or replace a schedule")
    adding.add_argument("name", help="the schedule's name")
    adding.add_argument(
        "--cron",
        required=True,
        help="a cron of five or six fields, or rate(...), cron(...), at(...), in UTC",
    )
    adding.add_argument("--app", type=Path, required=True, help="the Flower app's folder")
    add_flags(adding, only=("rounds", "devices"))
    adding.add_argument(
        "--when-drift",
        type=float,
        metavar="X",
        help="only once inputs have moved by X standard deviations (see `fleet`)",
    )
    removing = schedule.add_parser("remove", help="remove a schedule")
    removing.add_argument("name", help="the schedule's name")
    declare(adding, add)
    declare(schedule.add_parser("list", help="list schedules"), list_all)
    declare(removing, remove)


def expression_of(text: str) -> str:
    """A Scheduler expression from what a user writes.

    Unix cron has five fields; AWS has six, with a year, and one of the two day fields is ``?``:
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html

    Raises:
        UsageError: EventBridge Scheduler has no such schedule.

    """
    text = text.strip()
    if _EXPRESSION.fullmatch(text):
        return text
    fields = text.split()
    if len(fields) == 6:
        return f"cron({text})"
    if len(fields) != 5:
        raise UsageError(
            f"--cron {text!r} is not a cron of five or six fields, nor rate(...), cron(...) "
            "or at(...)."
        )
    minute, hour, day, month, weekday = fields
    if weekday == "*":
        weekday = "?"
    elif day == "*":
        # Unix counts the days of the week from Sunday = 0, AWS from Sunday = 1.
        day, weekday = "?", re.sub(r"\d", lambda m: str(int(m.group()) % 7 + 1), weekday)
    else:
        raise UsageError(
            f"--cron {text!r} names both a day of the month and a day of the week, "
            "which EventBridge Scheduler cannot."
        )
    return f"cron({minute} {hour} {day} {month} {weekday} *)"


def add(arguments: argparse.Namespace) -> int:
    """Add or replace a schedule."""
    name, drift = arguments.name, arguments.when_drift
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a schedule's name: use 1 to 64 letters, digits, '-', '_' or '.'."
        )
    if drift is not None and not 0 <= drift < 10:
        raise UsageError(
            f"--when-drift is {drift:g}; it must be a number of standard deviations from 0 to 10."
        )
    expression = expression_of(arguments.cron)
    check_fires(expression, time.time() - GRACE_SECONDS)
    wanted = plan(load_app(arguments.app), options_of(arguments, on_aws=True))
    with clouds.use(arguments.cloud) as cloud:
        scheduler = client("scheduler")
        add_schedule(
            scheduler, cloud.deployment, name, expression, _start_input(cloud, wanted, drift)
        )
        online = _online(cloud.deployment, wanted.fleet)
    app, coming = wanted.app.name, moments(expression, time.time())
    once = "" if drift is None else f" once inputs have moved by {drift:g} standard deviations"
    answer(
        arguments.json,
        {
            "name": name,
            "expression": expression,
            "app": app,
            "drift": drift,
            "next": coming,
            "devices_online": online,
        },
        "\n".join(
            [
                f"{name}: {expression} runs {app}{once}",
                f"  next      {', '.join(coming) or 'not known'}",
                f"  devices   {_devices_text(wanted, online, arguments.app)}",
                *([] if clouds.chosen(arguments.cloud) == "aws" else [LOCAL]),
            ]
        ),
    )
    return 0


def moments(expression: str, now: float, count: int = 3) -> list[str]:
    """The next firings as ISO 8601 in UTC."""
    return [moment(at) for at in next_firings(expression, now, count)]


def _online(deployment: Deployment, fleet: str) -> int:
    """Devices of a fleet that a run would find now."""
    devices = DeviceTable(client("dynamodb"), deployment.devices_table).fleet(fleet)
    now, fresh = time.time(), fresh_seconds()
    return sum(status.is_online(now, fresh) for status in devices)


def _devices_text(wanted: RunPlan, online: int, app: Path) -> str:
    if online >= wanted.devices:
        return f"{online} of fleet {wanted.fleet} are online; a run takes {wanted.devices}"
    hours = wanted.options.deadline_seconds / 3600
    return (
        f"{online} of fleet {wanted.fleet} are online, and a run takes {wanted.devices}: it waits "
        f"up to {hours:g} h for them, and then fails. On this machine `mledgeops local up --app "
        f"{app}` keeps devices running"
    )


def _start_input(cloud: clouds.Cloud, wanted: RunPlan, when_drift: float | None) -> dict[str, Any]:
    """Publish the pipeline; returns what the ``start`` function is invoked with."""
    pipeline = publish(wanted, cloud.deployment, wiring.run_clients(cloud.deployment))
    condition = {} if when_drift is None else {"when_drift": when_drift}
    return {"pipeline": pipeline, "parameters": wanted.parameters(), **condition}


def add_schedule(
    scheduler: Any, deployment: Deployment, name: str, expression: str, given: dict[str, Any]
) -> None:
    """Create or replace a schedule that invokes the ``start`` function with ``given``."""
    settings = {
        "Name": name,
        "GroupName": deployment.schedule_group,
        "ScheduleExpression": expression,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {
            "Arn": deployment.function_arn("start"),
            "RoleArn": deployment.role("scheduler"),
            "Input": json.dumps(given),
        },
    }
    try:
        scheduler.create_schedule(**settings)
    except scheduler.exceptions.ConflictException:
        scheduler.update_schedule(**settings)


def list_all(arguments: argparse.Namespace) -> int:
    """All schedules."""
    with clouds.use(arguments.cloud) as cloud:
        sagemaker = client("sagemaker")
        rows = schedules_in(
            client("scheduler"),
            cloud.deployment.schedule_group,
            lambda pipeline: last_start(sagemaker, pipeline),
        )
    columns = ["name", "expression", "state", "pipeline", "when drift", "next", "missed"]
    text = table(columns, [list(row.values()) for row in rows]) if rows else "no schedules"
    answer(arguments.json, {"schedules": rows}, text)
    return 0


def schedules_in(
    scheduler: Any,
    group: str,
    started: Callable[[str], float],
    now: Callable[[], float] = time.time,
) -> list[dict[str, Any]]:
    """The schedules of a group: name, expression, state, pipeline, drift if it waits for it, the
    next firing, and the last one if nothing was started then.

    ``started``: when a pipeline was last started.
    """
    pages = scheduler.get_paginator("list_schedules").paginate(GroupName=group)
    rows = []
    for name in [item["Name"] for page in pages for item in page["Schedules"]]:
        found = scheduler.get_schedule(Name=name, GroupName=group)
        given = json.loads(found["Target"]["Input"])
        rows.append(
            {
                "name": found["Name"],
                "expression": found["ScheduleExpression"],
                "state": found["State"],
                "pipeline": given["pipeline"],
                "drift": given.get("when_drift"),
                "next": next(iter(moments(found["ScheduleExpression"], now(), 1)), ""),
                "missed": _missed(found, given, started, now()),
            }
        )
    return rows


def _missed(
    schedule: Mapping[str, Any],
    given: Mapping[str, Any],
    started: Callable[[str], float],
    now: float,
) -> str:
    """The last firing, as ISO 8601, if the pipeline was not started since; else empty.

    So it is when the local cloud was down, or the start failed. One that waits for drift may well
    have fired and waited.
    """
    since = schedule.get("LastModificationDate") or schedule.get("CreationDate")
    if since is None or given.get("when_drift") is not None:
        return ""
    due = last_due(schedule["ScheduleExpression"], since.timestamp(), now - LATE_SECONDS)
    if due is None or started(given["pipeline"]) >= due - LATE_SECONDS:
        return ""
    return moment(due)


def last_start(sagemaker: Any, pipeline: str) -> float:
    """When a pipeline was last started, as Unix time; 0: never."""
    found = _executions(sagemaker, pipeline, 1)
    return max((item["StartTime"].timestamp() for item in found), default=0.0)


def _executions(sagemaker: Any, pipeline: str, count: int) -> list[dict[str, Any]]:
    try:
        answered = sagemaker.list_pipeline_executions(
            PipelineName=pipeline, SortBy="CreationTime", SortOrder="Descending", MaxResults=count
        )
    except ClientError:
        return []  # it was deleted
    return list(answered["PipelineExecutionSummaries"])


def remove(arguments: argparse.Namespace) -> int:
    """Remove a schedule."""
    with clouds.use(arguments.cloud) as cloud:
        scheduler, group = client("scheduler"), cloud.deployment.schedule_group
        try:
            found = scheduler.get_schedule(Name=arguments.name, GroupName=group)
            pipeline = json.loads(found["Target"]["Input"])["pipeline"]
            scheduler.delete_schedule(Name=arguments.name, GroupName=group)
        except scheduler.exceptions.ResourceNotFoundException as error:
            raise UsageError(
                f"There is no schedule {arguments.name!r}: `mledgeops schedule list` lists them."
            ) from error
        going = [
            item["PipelineExecutionArn"].split(":pipeline/")[1]
            for item in _executions(client("sagemaker"), pipeline, 20)
            if item["PipelineExecutionStatus"] in ("Executing", "Stopping")
        ]
    text = f"removed {arguments.name}"
    if going:
        text += (
            f"; what has started goes on: {', '.join(going)}. `mledgeops runs` names the run, and "
            "`mledgeops stop RUN` ends it"
        )
    answer(arguments.json, {"removed": arguments.name, "under_way": going}, text)
    return 0
