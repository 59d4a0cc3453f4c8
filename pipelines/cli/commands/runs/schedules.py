"""``mledgeops schedule add | list | remove``: EventBridge Scheduler starts an app's pipeline."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client
from pipelines.cli.commands.runs.flags import add_flags, options_of
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.deployment import Deployment
from pipelines.desk import clouds, wiring
from pipelines.errors import UsageError
from pipelines.run.plan import RunPlan, plan
from pipelines.run.publication import publish

_EXPRESSION = re.compile(
    r"(rate\(\d+ (minute|minutes|hour|hours|day|days)\)"
    r"|cron\([^()]+\)"
    r"|at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\))"
)
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
    wanted = plan(load_app(arguments.app), options_of(arguments, on_aws=True))
    with clouds.use(arguments.cloud) as cloud:
        scheduler = client("scheduler")
        add_schedule(
            scheduler, cloud.deployment, name, expression, _start_input(cloud, wanted, drift)
        )
    app = wanted.app.name
    once = "" if drift is None else f" once inputs have moved by {drift:g} standard deviations"
    answer(
        arguments.json,
        {"name": name, "expression": expression, "app": app, "drift": drift},
        f"{name}: {expression} runs {app}{once}; "
        f"it fires while `mledgeops local up --app {arguments.app}` is on",
    )
    return 0


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
        rows = schedules_in(client("scheduler"), cloud.deployment.schedule_group)
    columns = ["name", "expression", "state", "pipeline", "when drift"]
    text = table(columns, [list(row.values()) for row in rows]) if rows else "no schedules"
    answer(arguments.json, {"schedules": rows}, text)
    return 0


def schedules_in(scheduler: Any, group: str) -> list[dict[str, Any]]:
    """The schedules of a group: name, expression, state, pipeline, and drift if it waits for it."""
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
            }
        )
    return rows


def remove(arguments: argparse.Namespace) -> int:
    """Remove a schedule."""
    with clouds.use(arguments.cloud) as cloud:
        scheduler, group = client("scheduler"), cloud.deployment.schedule_group
        try:
            scheduler.delete_schedule(Name=arguments.name, GroupName=group)
        except scheduler.exceptions.ResourceNotFoundException as error:
            raise UsageError(
                f"There is no schedule {arguments.name!r}: `mledgeops schedule list` lists them."
            ) from error
    answer(arguments.json, {"removed": arguments.name}, f"removed {arguments.name}")
    return 0
