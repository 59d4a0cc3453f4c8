"""Pipeline executions: their state, kept in one file each, and the callbacks they wait for."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.files import write_atomically

UNDER_WAY = ("Executing", "Stopping")
_NOT_KEPT = ("stopping", "lock")


@dataclass
class PipelineExecution:
    """One pipeline execution and its steps, as the API describes them."""

    arn: str
    pipeline: str
    definition: dict[str, Any]
    parameters: dict[str, Any]
    status: str = "Executing"
    reason: str = ""
    started_at: float = field(default_factory=time.time)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, in the order of their start."""
    role: str = ""
    """ARN of the role that it acts as."""
    parallel: int = 0
    """How many steps may run at once; 0: as many as can."""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What steps that succeeded gave, by name: for later executions whose caching finds them."""
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while ``steps`` and ``results`` are changed or written: steps run side by side."""

    def to_json(self) -> dict[str, Any]:
        """What is kept on disk."""
        return {key: value for key, value in self.__dict__.items() if key not in _NOT_KEPT}

    def described_steps(self) -> list[dict[str, Any]]:
        """The steps as they are now, in the order of their start."""
        with self.lock:
            return [dict(step) for step in self.steps.values()]


class ExecutionFiles:
    """A folder with one JSON file for each execution."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, execution: PipelineExecution) -> None:
        """Write an execution's state. It survives a power cut: pipelines are not run twice."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{execution.arn.rsplit('/', 1)[1]}.json"
        with execution.lock:  # also while it is written: an older state must not replace a newer
            write_atomically(file, json.dumps(execution.to_json()).encode(), durable=True)

    def under_way(self) -> list[str]:
        """ARNs of the executions that have not ended, as the files have it."""
        found = [json.loads(file.read_text()) for file in sorted(self._folder.glob("*.json"))]
        return [item["arn"] for item in found if item["status"] in UNDER_WAY]

    def load(self) -> dict[str, PipelineExecution]:
        """Executions of earlier clouds by ARN; one that was under way has failed with its cloud."""
        found = {}
        for file in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            execution = PipelineExecution(**json.loads(file.read_text()))
            if execution.status in UNDER_WAY:
                execution.status = "Failed"
                execution.reason = "The local cloud ended while this ran."
            found[execution.arn] = execution
        return found


@dataclass
class Callback:
    """A callback step that waits for its answer."""

    execution: str
    """The execution's ARN."""
    answered: threading.Event = field(default_factory=threading.Event)
    outputs: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


class Callbacks:
    """The callback steps of all executions, by token."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callback] = {}

    def add(self, token: str, execution: str) -> Callback:
        """Register a callback step under its token."""
        callback = self._waiting[token] = Callback(execution)
        return callback

    def execution_of(self, token: str) -> str | None:
        """ARN of the execution whose callback has this token."""
        callback = self._waiting.get(token)
        return callback.execution if callback is not None else None

    def answer(self, token: str, outputs: dict[str, Any] | None, failure: str | None) -> bool:
        """Answer a callback; False for a token that is unknown or has been answered."""
        callback = self._waiting.get(token)
        if callback is None or callback.answered.is_set():
            return False
        callback.outputs, callback.failure = outputs or {}, failure
        callback.answered.set()
        return True
