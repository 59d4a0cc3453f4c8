"""Runs the steps of one execution: each when those that it needs have ended, side by side."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.local.sagemaker.definitions.graph import Node, Step, graph_of
from pipelines.local.sagemaker.outcomes import ExecutionStopped, StepFailed
from pipelines.local.sagemaker.steps.callback import call_back
from pipelines.local.sagemaker.steps.context import StepContext
from pipelines.local.sagemaker.steps.control import decide, fail
from pipelines.local.sagemaker.steps.functions import invoke
from pipelines.local.sagemaker.steps.jobs import run_job
from pipelines.local.sagemaker.steps.models import create, register
from pipelines.local.sagemaker.steps.retrying import retried

logger = logging.getLogger(__name__)

REASON_LIMIT = 1024
"""Characters of a step's FailureReason:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_PipelineExecutionStep.html
"""
PARALLEL_STEPS = 50
"""Steps at once without a ParallelismConfiguration: all that a pipeline may have."""

EXECUTORS: dict[str, Callable[[Step, StepContext], dict[str, Any]]] = {
    "Callback": call_back,
    "Condition": decide,
    "Fail": fail,
    "Lambda": invoke,
    "Model": create,
    "Processing": run_job,
    "RegisterModel": register,
    "Training": run_job,
}
"""Returns a step's properties, to which other steps refer."""


class StepRunner:
    """Runs the steps of one execution."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._execution = context.execution
        self._ended: queue.SimpleQueue[tuple[str, StepFailed | ExecutionStopped | None]] = (
            queue.SimpleQueue()
        )
        self._waiting: dict[str, Node] = {}
        self._running: set[str] = set()
        self._skipped: set[str] = set()
        """Steps of branches that were not taken, and those that need them."""

    def run(self, steps: list[Step]) -> None:
        """Run all steps. When one fails, those that run go on to their end, and no other begins.

        Raises:
            StepFailed: A step failed: the first that did.
            ExecutionStopped: The execution was stopped before all steps had run.

        """
        self._waiting = graph_of(steps)
        limit = self._execution.parallel or PARALLEL_STEPS
        failure: StepFailed | ExecutionStopped | None = None
        while True:
            if failure is None and not self._execution.stopping.is_set():
                for node in self._ready()[: limit - len(self._running)]:
                    self._start(node)
            if not self._running:
                break
            name, error = self._ended.get()
            self._running.discard(name)
            failure = failure or error
        if self._execution.stopping.is_set() and (self._waiting or failure is not None):
            raise failure if isinstance(failure, ExecutionStopped) else ExecutionStopped()
        if failure is not None:
            raise failure

    def _ready(self) -> list[Node]:
        """Steps that can begin, in the definition's order."""
        while skipped := [name for name, node in self._waiting.items() if self._is_left_out(node)]:
            for name in skipped:
                del self._waiting[name]
            self._skipped.update(skipped)
        pending = self._waiting.keys() | self._running
        return [node for node in self._waiting.values() if not node.needs & pending]

    def _is_left_out(self, node: Node) -> bool:
        if node.needs & self._skipped:
            return True
        taken = self._context.scope.outputs.get(node.condition, {}).get("Outcome")
        return taken is not None and (taken == "True") is not node.branch

    def _start(self, node: Node) -> None:
        name = node.step["Name"]
        del self._waiting[name]
        self._running.add(name)
        threading.Thread(
            target=self._run_one, args=(node.step,), name=f"step-{name}", daemon=True
        ).start()

    def _run_one(self, step: Step) -> None:
        """Run a step, and tell the loop how it ended."""
        name, error = step["Name"], None
        try:
            self._execution_of(step)
        except (StepFailed, ExecutionStopped) as ended:
            error = ended
        except Exception as crash:
            # A definition can be edited by hand: whatever it leads to must end the execution.
            logger.exception("step-crashed")
            error = StepFailed(f"The local cloud could not run the step {name}: {crash!r}")
        self._ended.put((name, error))

    def _execution_of(self, step: Step) -> None:
        name = step["Name"]
        record: dict[str, Any] = {
            "StepName": name,
            "StepStatus": "Executing",
            "StartTime": time.time(),
            "Metadata": {},
            "AttemptCount": 1,
        }
        shown = {"StepDisplayName": "DisplayName", "StepDescription": "Description"}
        record |= {to: step[source] for to, source in shown.items() if step.get(source)}
        self._change(name, record)
        try:
            properties = self._attempts(step)
        except Exception as error:
            stopped = isinstance(error, ExecutionStopped)
            reason = reason_of(error)[:REASON_LIMIT]
            ended = {"StepStatus": "Stopped" if stopped else "Failed", "FailureReason": reason}
            self._change(name, {**ended, "EndTime": time.time()})
            if stopped:
                raise
            raise StepFailed(reason) from error
        self._context.scope.outputs[name] = properties
        self._change(name, {"StepStatus": "Succeeded", "EndTime": time.time()})

    def _attempts(self, step: Step) -> dict[str, Any]:
        executor = EXECUTORS.get(step["Type"])
        if executor is None:
            # Of the kinds that only a stand-in can run.
            executor = run_job

        def attempt(number: int) -> dict[str, Any]:
            if number > 1:
                self._change(step["Name"], {"AttemptCount": number})
            return executor(step, self._context)

        return retried(step, attempt, self._execution.stopping.wait, time.monotonic)

    def _change(self, name: str, values: dict[str, Any]) -> None:
        with self._execution.lock:
            self._execution.steps.setdefault(name, {}).update(values)
        self._context.save(self._execution)


def reason_of(error: Exception) -> str:
    """Why a step failed, for its user."""
    if isinstance(error, StepFailed | ExecutionStopped | ValueError | BotoCoreError):
        return str(error)
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response['Error'].get('Message') or error}"
    if isinstance(error, KeyError):
        return f"The definition lacks {error}, which this step needs."
    logger.error("step-crashed", exc_info=error)
    return f"The local cloud could not run this step: {error!r}"
