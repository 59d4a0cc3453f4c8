"""``mledgeops schedule add | list | remove``: EventBridge Scheduler starts an app's pipeline."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from edge.training.app_bundle import load_app
from pipelines.cli.commands.runs.flags import add_flags, options_of
from pipelines.cli.output import say, show_json, table
from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.errors import UsageError
from pipelines.run.clients import run_clients
from pipelines.run.plan import RunPlan, plan
from pipelines.run.publication import publish

_EXPRESSION = re.compile(
    r"(rate\(\d+ (minute|minutes|hour|hours|day|days)\)|cron\([^()]+\)|at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\))"
)
_NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    schedule = commands.add_parser("schedule", help="retrain on a schedule").add_subparsers(
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
    for parser, function in (
        (adding, add),
        (schedule.add_parser("list", help="list schedules"), list_all),
        (removing, remove),
    ):
        clouds.add_option(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def expression_of(text: str) -> str:
    """A Scheduler expression from what a user writes; raises UsageError.

    Unix cron has five fields, AWS six with a year and one ``?`` among the two day fields:
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
    """
    text = text.strip()
    if _EXPRESSION.fullmatch(text):
        return text
    fields = text.split()
    if len(fields) == 6:
        return f"cron({text})"
    if len(fields) != 5:
        raise UsageError(
            f"--cron {text!r} is not a cron of five or six fields, nor rate(...), cron(...) or at(...)."
        )
    minute, hour, day, month, weekday = fields
    if weekday == "*":
        weekday = "?"
    elif day == "*":
        day, weekday = "?", re.sub(r"\d", lambda m: str(int(m.group()) % 7 + 1), weekday)
    else:
        raise UsageError(
            f"--cron {text!r} names both a day of the month and a day of the week, which EventBridge Scheduler cannot."
        )
    return f"cron({minute} {hour} {day} {month} {weekday} *)"


def add_schedule(
    deployment: Deployment,
    name: str,
    expression: str,
    the_plan: RunPlan,
    when_drift: float | None = None,
) -> None:
    """Upload the app, write its pipeline, and make the schedule that starts it through the
    ``start`` function.
    """
    from fl_runtime.run.aws import client

    pipeline = publish(the_plan, deployment, run_clients(deployment))
    condition = {} if when_drift is None else {"when_drift": when_drift}
    target = {
        "Arn": deployment.function_arn("start"),
        "RoleArn": deployment.role("scheduler"),
        "Input": json.dumps(
            {"pipeline": pipeline.name, "parameters": the_plan.parameters(), **condition}
        ),
    }
    scheduler = client("scheduler")
    settings = {
        "Name": name,
        "GroupName": deployment.schedule_group,
        "ScheduleExpression": expression,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
    }
    try:
        scheduler.create_schedule(**settings)
    except scheduler.exceptions.ConflictException:
        scheduler.update_schedule(**settings)


def add(arguments: argparse.Namespace) -> int:
    """Add or replace."""
    if not _NAME.fullmatch(arguments.name):
        raise UsageError(
            f"{arguments.name!r} cannot be a schedule's name: use 1 to 64 letters, digits, '-', '_' or '.'."
        )
    if arguments.when_drift is not None and not 0 <= arguments.when_drift < 10:
        raise UsageError(
            f"--when-drift is {arguments.when_drift:g}; it must be a number of standard deviations from 0 to 10."
        )
    expression = expression_of(arguments.cron)
    the_plan = plan(load_app(arguments.app), options_of(arguments, on_aws=True))
    with clouds.use(arguments.cloud) as cloud:
        add_schedule(cloud.deployment, arguments.name, expression, the_plan, arguments.when_drift)
    result = {
        "name": arguments.name,
        "expression": expression,
        "app": the_plan.app.name,
        "drift": arguments.when_drift,
    }
    once = (
        ""
        if arguments.when_drift is None
        else f" once inputs have moved by {arguments.when_drift:g} standard deviations"
    )
    text = f"{arguments.name}: {expression} runs {the_plan.app.name}{once}; it fires while `mledgeops local up --app {arguments.app}` is on"
    show_json(result) if arguments.json else say(text)
    return 0


def list_all(arguments: argparse.Namespace) -> int:
    """All schedules."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client

        scheduler, group = client("scheduler"), cloud.deployment.schedule_group
        names = [
            item["Name"]
            for page in scheduler.get_paginator("list_schedules").paginate(GroupName=group)
            for item in page["Schedules"]
        ]
        found = [scheduler.get_schedule(Name=name, GroupName=group) for name in names]
    rows = [
        {
            "name": s["Name"],
            "expression": s["ScheduleExpression"],
            "state": s["State"],
            "pipeline": given["pipeline"],
            "drift": given.get("when_drift"),
        }
        for s in found
        for given in [json.loads(s["Target"]["Input"])]
    ]
    if arguments.json:
        show_json({"schedules": rows})
    else:
        say(
            table(
                ["name", "expression", "state", "pipeline", "when drift"],
                [list(row.values()) for row in rows],
            )
            if rows
            else "no schedules"
        )
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove one."""
    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client

        scheduler = client("scheduler")
        try:
            scheduler.delete_schedule(
                Name=arguments.name, GroupName=cloud.deployment.schedule_group
            )
        except scheduler.exceptions.ResourceNotFoundException as error:
            raise UsageError(
                f"There is no schedule {arguments.name!r}: `mledgeops schedule list` shows them."
            ) from error
    show_json({"removed": arguments.name}) if arguments.json else say(f"removed {arguments.name}")
    return 0
