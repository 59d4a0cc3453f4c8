"""ministack, with what a run needs and it lacks. Pinned to 1.5.33; tests/test_local_cloud.py holds each patch.

- a task token's ``HeartbeatSeconds`` is enforced (``States.HeartbeatTimeout``);
- ``ecs:runTask.sync`` fails with ``States.TaskFailed`` when a container's exit code is not 0, and waits as long as it takes;
- ``PutEvents`` takes the source ``aws.sagemaker``, for which the local SageMaker speaks.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ministack.services import eventbridge, stepfunctions

EXIT_CODE = re.compile(r"exited with code (-?\d+)")
"""How the local ECS agent says in ``stoppedReason`` what became of a container."""


def _enforce_heartbeats(original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(resource: str, input_data: Any, token: str, state: dict[str, Any]) -> Any:
        seconds = state.get("HeartbeatSeconds")
        if seconds:
            threading.Thread(target=_watch, args=(token, float(seconds)), daemon=True).start()
        return original(resource, input_data, token, state)

    return invoke


def _watch(token: str, seconds: float) -> None:
    """Fail the token when its last heartbeat, or its start, is too long ago."""
    started = time.time()
    while time.time() - started < 5 and _find(token) is None:
        time.sleep(0.05)
    while (info := _find(token)) is not None and not info["event"].is_set():
        last = max(started, _epoch(info.get("heartbeat")))
        if time.time() - last > seconds:
            info["error"] = {"Error": "States.HeartbeatTimeout", "Cause": f"no heartbeat for {seconds:.0f} s"}
            info["event"].set()
            return
        time.sleep(0.25)


def _find(token: str) -> dict[str, Any] | None:
    """A token's record, whatever account and region it belongs to."""
    return next((info for key, info in list(stepfunctions._task_tokens._data.items()) if key[-1] == token), None)


def _epoch(moment: Any) -> float:
    if isinstance(moment, int | float):
        return float(moment)
    return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp() if moment else 0.0


def _wait_for_tasks(cluster: str, arns: list[str]) -> Any:
    from ministack.services import ecs

    while True:
        time.sleep(0.2)
        _, _, body = ecs._describe_tasks({"cluster": cluster, "tasks": arns})
        result = json.loads(body) if body else {}
        tasks = result.get("tasks", [])
        if not tasks or any(task.get("lastStatus") != "STOPPED" for task in tasks):
            continue
        for task in tasks:
            code = EXIT_CODE.search(task.get("stoppedReason", ""))
            if code and code.group(1) != "0":
                raise stepfunctions._ExecutionError("States.TaskFailed", task["stoppedReason"])
        return result


def _allow_sagemaker_events(original: Callable[..., Any]) -> Callable[..., Any]:
    def put_events(data: dict[str, Any], allow_aws_source: bool = False) -> Any:
        sources = {entry.get("Source") for entry in data.get("Entries", [])}
        return original(data, allow_aws_source=allow_aws_source or sources == {"aws.sagemaker"})

    return put_events


def patch() -> None:
    """Apply all patches to the imported library."""
    stepfunctions._invoke_with_callback = _enforce_heartbeats(stepfunctions._invoke_with_callback)
    stepfunctions._poll_ecs_tasks = _wait_for_tasks
    eventbridge._put_events = _allow_sagemaker_events(eventbridge._put_events)


if __name__ == "__main__":
    from ministack.app import main

    patch()
    main()
