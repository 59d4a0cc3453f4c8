"""What CloudFormation says of a stack: its status, its end, the reason of a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipelines.errors import DeployError

COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
NEW = ("REVIEW_IN_PROGRESS",)
"""A stack that has a change set and no resources yet."""
UNUSABLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
"""States that no change set leads out of."""
STACK_SECONDS = 3600.0
"""How long a stack may take."""


def read_status(api: Any, stack: str) -> str | None:
    """A stack's status; None when there is none. ``api``: a CloudFormation client."""
    try:
        return str(api.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except api.exceptions.ClientError as error:
        # The code is ValidationError, which CloudFormation uses for much else.
        if "does not exist" in str(error):
            return None
        raise


def first_failure(api: Any, stack: str) -> str:
    """The resource that failed first, and why. Those that failed later were cancelled for it."""
    # A page has 100 events, newest first, and a failure is followed by the events of its rollback.
    pages = api.get_paginator("describe_stack_events").paginate(StackName=stack)
    failed = [
        e
        for page in pages
        for e in page["StackEvents"]
        if e.get("ResourceStatus", "").endswith("FAILED")
        and "cancelled" not in e.get("ResourceStatusReason", "")
    ]
    if not failed:
        return "no failed resource in its events"
    reason = failed[-1].get("ResourceStatusReason", "")
    if "DescribeEvents" in reason:
        return _invalid(api, stack) or reason.rstrip(".")
    return f"{failed[-1]['LogicalResourceId']}: {reason}".rstrip(".")


def _invalid(api: Any, stack: str) -> str:
    """What CloudFormation found before it created anything: the stack's events only count it.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeEvents.html
    """
    pages = api.get_paginator("describe_events").paginate(
        StackName=stack, Filters={"FailedEvents": True}
    )
    for event in (event for page in pages for event in page["OperationEvents"]):
        if event.get("ValidationStatusReason"):
            reason = str(event["ValidationStatusReason"]).rstrip(".")
            return f"{event.get('LogicalResourceId', stack)}: {reason}"
    return ""


class Waiter:
    """Polls until something has settled."""

    def __init__(
        self,
        *,
        poll_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._poll = poll_seconds
        self._clock = clock
        self._sleep = sleep

    def until(self, settled: Callable[[], bool], stack: str) -> None:
        """Raises DeployError when it takes longer than STACK_SECONDS."""
        deadline = self._clock() + STACK_SECONDS
        while not settled():
            if self._clock() > deadline:
                raise DeployError(
                    f"Stack {stack} did not settle within {STACK_SECONDS / 60:.0f} minutes; "
                    "CloudFormation goes on by itself."
                )
            self._sleep(self._poll)
