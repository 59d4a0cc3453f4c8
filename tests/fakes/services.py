"""What the Lambda functions work with, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from fakes.mlflow_client import MemoryMlflow
from fakes.objects import MemoryObjects
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.state import TERMINAL_STATES, RunState
from pipelines.handlers.aws_clients import Services

MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:mledgeops-run"


class MemoryRuns:
    """RunTable in a dictionary, with its conditions."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def create(self, state: RunState) -> bool:
        if state.run in self.items:
            return False
        self.items[state.run] = {"run": state.run, "state": state.state}
        return True

    def get(self, run: str) -> RunState | None:
        return RunState(**self.items[run]) if run in self.items else None

    def update(self, run: str, *, unless: tuple[str, ...] = (), **changes: Any) -> bool:
        item = self.items.get(run)
        if item is None or item["state"] in (*TERMINAL_STATES, *unless):
            return False
        item.update(changes)
        return True


class MemoryDevices:
    """DeviceTable over a list."""

    def __init__(self, devices: Iterable[DeviceStatus] = ()) -> None:
        self.devices = list(devices)

    def fleet(self, fleet: str) -> Iterable[DeviceStatus]:
        return [status for status in self.devices if status.fleet == fleet]


class MemorySageMaker:
    """Answers of callbacks, and pipelines that were started. A second answer is refused."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.started: list[dict[str, Any]] = []

    def send_pipeline_execution_step_success(
        self, CallbackToken: str, OutputParameters: list[dict[str, str]]
    ) -> None:
        self._answer(CallbackToken, {o["Name"]: o["Value"] for o in OutputParameters})

    def send_pipeline_execution_step_failure(self, CallbackToken: str, FailureReason: str) -> None:
        self._answer(CallbackToken, FailureReason)

    def start_pipeline_execution(self, **request: Any) -> dict[str, str]:
        self.started.append(request)
        return {"PipelineExecutionArn": "arn:p/execution/1"}

    def _answer(self, token: str, answer: Any) -> None:
        if token in self.answers:
            error = {"Error": {"Code": "ValidationException", "Message": "answered"}}
            raise ClientError(error, "SendPipelineExecutionStep")
        self.answers[token] = answer


class MemorySteps:
    """Executions of the state machine, by name."""

    class exceptions:
        class ExecutionAlreadyExists(Exception):
            pass

        class ExecutionDoesNotExist(Exception):
            pass

    def __init__(self) -> None:
        self.executions: dict[str, str] = {}

    def start_execution(self, stateMachineArn: str, name: str, input: str) -> dict[str, str]:
        if name in self.executions:
            raise self.exceptions.ExecutionAlreadyExists
        self.executions[name] = "RUNNING"
        return {"executionArn": f"arn:execution:{name}"}

    def stop_execution(self, executionArn: str, error: str, cause: str) -> None:
        name = executionArn.rsplit(":", 1)[1]
        if name not in self.executions:
            raise self.exceptions.ExecutionDoesNotExist
        self.executions[name] = "ABORTED"


class MemoryLink:
    """The link function: which runs it was asked to sign."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.signed: list[str] = []
        self.refusal = refusal

    def sign_run(self, run: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.signed.append(run)


def memory_services(**changes: Any) -> Any:
    """Services over fakes; ``changes`` replace some."""
    mlflow = MemoryMlflow()
    parts: dict[str, Any] = {
        "objects": MemoryObjects(),
        "runs": MemoryRuns(),
        "devices": MemoryDevices(),
        "rollouts": None,
        "sagemaker": MemorySageMaker(),
        "steps": MemorySteps(),
        "link": MemoryLink(),
        "state_machine": MACHINE,
        "mlflow": lambda: mlflow,
        "artifact_root": None,
        "fresh_seconds": 90.0,
    }
    return Services(**{**parts, **changes})
