"""Patches of ministack's Step Functions: heartbeats of task tokens, exit codes of ECS tasks."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ministack.services import stepfunctions

EXIT_CODE = re.compile(r"exited with code (-?\d+)")
"""How the local ECS agent gives a container's exit code in ``stoppedReason``."""
POLL_SECONDS = 0.2


def enforce_heartbeats() -> None:
    """Fail a task token with ``States.HeartbeatTimeout`` after its ``HeartbeatSeconds``."""
    stepfunctions._invoke_with_callback = _watched(stepfunctions._invoke_with_callback)


def fail_with_task() -> None:
    """Make ``ecs:runTask.sync`` wait without limit, and fail when a container did."""
    stepfunctions._poll_ecs_tasks = _await_tasks


def _watched(original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(resource: str, input_data: Any, token: str, state: dict[str, Any]) -> Any:
        seconds = state.get("HeartbeatSeconds")
        if seconds:
            arguments = (token, float(seconds))
            threading.Thread(target=_watch_token, args=arguments, daemon=True).start()
        return original(resource, input_data, token, state)

    return invoke


def _watch_token(token: str, seconds: float) -> None:
    """Fail the token once its start and its last heartbeat are older than ``seconds``."""
    started = time.time()
    # The emulator registers the token after this thread has started.
    while time.time() - started < 5 and _token_record(token) is None:
        time.sleep(0.05)
    while (info := _token_record(token)) is not None and not info["event"].is_set():
        last = max(started, _epoch(info.get("heartbeat")))
        if time.time() - last > seconds:
            cause = f"no heartbeat for {seconds:.0f} s"
            info["error"] = {"Error": "States.HeartbeatTimeout", "Cause": cause}
            info["event"].set()
            return
        time.sleep(POLL_SECONDS)


def _token_record(token: str) -> dict[str, Any] | None:
    """A token's record, in whatever account and region it is."""
    records = list(stepfunctions._task_tokens._data.items())
    return next((info for key, info in records if key[-1] == token), None)


def _epoch(moment: Any) -> float:
    """A moment as seconds since the epoch; the emulator keeps numbers or ISO texts."""
    if isinstance(moment, int | float):
        return float(moment)
    return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp() if moment else 0.0


def _runs(cluster: str, arn: str) -> bool:
    from ministack.services import ecs

    task = ecs._resolve_task(arn, ecs._resolve_cluster_name(cluster))
    return task is not None and task.get("lastStatus") != "STOPPED" and not task.get("_docker_ids")


def _await_tasks(cluster: str, arns: list[str]) -> Any:
    """Wait until all tasks have stopped; fails the state when an exit code is not 0."""
    from ministack.services import ecs

    while True:
        time.sleep(POLL_SECONDS)
        # Describing a task makes a copy of all of it: ten proxies took a sixth of the emulator.
        if any(_runs(cluster, arn) for arn in arns):
            continue
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
