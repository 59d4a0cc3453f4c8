"""``python -m pipelines.local.emulators.ministack``: apply the patches, then serve."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.services import eventbridge, sqs

from pipelines.local.emulators.calls import CallLog
from pipelines.local.emulators.ministack import (
    broker,
    expressions,
    function_workers,
    iam,
    provisioning,
    step_functions,
    thing_attributes,
    vpc_endpoints,
)
from pipelines.local.forks.client import VARIABLE as FORKS

QUEUE_PORT = "4566"
"""In the URLs of queues. The emulator keeps queues by URL, and its own port changes."""


SPOKEN_FOR = {"aws.sagemaker", "aws.ecs"}
"""Sources of events for which the local SageMaker and the local ECS agent speak."""


def _allow_own_events(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let PutEvents take the events of the services that we stand in for."""

    def put_events(data: dict[str, Any], allow_aws_source: bool = False) -> Any:
        sources = {entry.get("Source") for entry in data.get("Entries", [])}
        return original(data, allow_aws_source=allow_aws_source or sources <= SPOKEN_FOR)

    return put_events


def patch() -> None:
    """Apply all patches to the imported library."""
    calls = os.environ.get("MLEDGEOPS_CALLS")
    if calls:
        iam.record_decisions(CallLog(Path(calls)))
    iam.meet_conditions()
    broker.index_subscriptions()
    expressions.parse_once()
    provisioning.take_signing_requests()
    thing_attributes.resolve_attributes()
    vpc_endpoints.give_names()
    step_functions.enforce_heartbeats()
    step_functions.fail_with_task()
    if forks := os.environ.pop(FORKS, ""):
        function_workers.fork_workers(forks)
    sqs.DEFAULT_PORT = QUEUE_PORT
    eventbridge._put_events = _allow_own_events(eventbridge._put_events)


if __name__ == "__main__":
    from ministack.app import main

    patch()
    main()
