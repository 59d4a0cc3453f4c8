"""Runs SageMaker pipeline definitions: the JSON that the SDK writes and AWS would run.

Steps: Callback, Lambda, Condition, RegisterModel, Fail. See docs/decisions/0003 for why this reads
the definition rather than extend the SDK's local mode.
"""

from __future__ import annotations

import json
import logging
import secrets
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.local.sagemaker.values import Scope, holds

logger = logging.getLogger(__name__)

TOKEN_LENGTH = 10
REASON_LIMIT = 256


class StepFailed(Exception):
    """A step that failed, with the reason that the execution shows."""


class Stopped(Exception):
    """The execution was stopped."""


@dataclass
class Execution:
    """One pipeline execution and its steps, as the API describes them."""

    arn: str
    pipeline: str
    definition: dict[str, Any]
    parameters: dict[str, Any]
    status: str = "Executing"
    reason: str = ""
    started_at: float = field(default_factory=time.time)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def to_json(self) -> dict[str, Any]:
        """What is kept on disk."""
        return {key: value for key, value in self.__dict__.items() if key != "stopping"}


@dataclass
class _Callback:
    execution: str
    answered: threading.Event = field(default_factory=threading.Event)
    outputs: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


class Engine:
    """All executions of one local cloud."""

    def __init__(self, folder: Path, clients: dict[str, Any], arn_prefix: str) -> None:
        self._folder = folder
        self._sqs, self._lambda, self._sagemaker = (
            clients[name] for name in ("sqs", "lambda", "sagemaker")
        )
        self._prefix = arn_prefix
        self._executions: dict[str, Execution] = {}
        self._callbacks: dict[str, _Callback] = {}
        self._executors: dict[str, Callable[[Execution, dict[str, Any], Scope], dict[str, Any]]] = {
            "Callback": self._run_callback,
            "Lambda": self._run_lambda,
            "Condition": self._run_condition,
            "RegisterModel": self._run_register,
            "Fail": self._run_fail,
        }
        self._load()

    def start(self, pipeline: str, definition: dict[str, Any], given: dict[str, str]) -> Execution:
        """Begin an execution; raises ValueError for a parameter that the pipeline does not declare."""
        parameters = _parameters(definition, given)
        token = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        execution = Execution(
            f"{self._prefix}:pipeline/{pipeline}/execution/{token}",
            pipeline,
            definition,
            parameters,
        )
        self._executions[execution.arn] = execution
        self._save(execution)
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return execution

    def get(self, arn: str) -> Execution | None:
        """An execution by ARN."""
        return self._executions.get(arn)

    def of_pipeline(self, pipeline: str) -> list[Execution]:
        """A pipeline's executions, newest first."""
        return sorted(
            (e for e in self._executions.values() if e.pipeline == pipeline),
            key=lambda e: e.started_at,
            reverse=True,
        )

    def stop(self, execution: Execution) -> None:
        """Ask an execution to stop; it is Stopped once its callback has been answered."""
        if execution.status == "Executing":
            execution.status = "Stopping"
            execution.stopping.set()
            self._save(execution)

    def asked_by(self, token: str) -> str | None:
        """ARN of the execution whose callback has this token."""
        callback = self._callbacks.get(token)
        return callback.execution if callback is not None else None

    def answer(self, token: str, outputs: dict[str, Any] | None, failure: str | None) -> bool:
        """A callback's answer; False for a token that is not waiting."""
        callback = self._callbacks.get(token)
        if callback is None or callback.answered.is_set():
            return False
        callback.outputs, callback.failure = outputs or {}, failure
        callback.answered.set()
        return True

    def _run(self, execution: Execution) -> None:
        scope = Scope(execution.parameters, execution.arn, execution.pipeline)
        try:
            self._run_steps(execution, execution.definition["Steps"], scope)
            execution.status = "Succeeded"
        except Stopped:
            execution.status = "Stopped"
        except StepFailed as error:
            execution.status, execution.reason = "Failed", str(error)
        except (ClientError, BotoCoreError, KeyError, ValueError) as error:
            logger.exception("pipeline-crashed")
            execution.status, execution.reason = (
                "Failed",
                f"The local cloud could not run a step: {error}"[:1024],
            )
        self._save(execution)
        event(
            logger,
            "pipeline-ended",
            execution=execution.arn,
            status=execution.status,
            reason=execution.reason,
        )

    def _run_steps(self, execution: Execution, steps: list[dict[str, Any]], scope: Scope) -> None:
        """In the order the SDK writes them, which respects their dependencies."""
        for step in steps:
            if execution.stopping.is_set():
                raise Stopped
            record = {
                "StepName": step["Name"],
                "StepStatus": "Executing",
                "StartTime": time.time(),
                "Metadata": {},
            }
            execution.steps[step["Name"]] = record
            self._save(execution)
            try:
                executor = self._executors.get(step["Type"])
                if executor is None:
                    raise StepFailed(
                        f"The local cloud does not run steps of type {step['Type']} (step {step['Name']})."
                    )
                scope.outputs[step["Name"]] = executor(execution, step, scope)
                record["StepStatus"] = "Succeeded"
            except (StepFailed, Stopped) as error:
                record["StepStatus"] = "Stopped" if isinstance(error, Stopped) else "Failed"
                record["FailureReason"] = str(error)
                raise
            finally:
                record["EndTime"] = time.time()

    def _run_callback(
        self, execution: Execution, step: dict[str, Any], scope: Scope
    ) -> dict[str, Any]:
        token = "".join(
            secrets.choice(string.ascii_letters + string.digits) for _ in range(TOKEN_LENGTH)
        )
        callback = self._callbacks[token] = _Callback(execution.arn)
        outputs = step.get("OutputParameters", [])
        metadata = {
            "CallbackToken": token,
            "SqsQueueUrl": step["SqsQueueUrl"],
            "OutputParameters": [],
        }
        execution.steps[step["Name"]]["Metadata"] = {"Callback": metadata}
        self._save(execution)
        arguments = scope.resolve(step["Arguments"])
        self._send(step["SqsQueueUrl"], token, execution.arn, arguments, "Executing")
        while not callback.answered.wait(0.1):
            if execution.stopping.is_set():
                self._send(step["SqsQueueUrl"], token, execution.arn, arguments, "Stopping")
                callback.answered.wait()
        if execution.stopping.is_set():
            raise Stopped(callback.failure or "")
        if callback.failure is not None:
            raise StepFailed(callback.failure)
        metadata["OutputParameters"] = [
            {"Name": name, "Value": value} for name, value in callback.outputs.items()
        ]
        return {
            "OutputParameters": {
                o["OutputName"]: _typed(callback.outputs.get(o["OutputName"], ""), o["OutputType"])
                for o in outputs
            }
        }

    def _send(self, url: str, token: str, arn: str, arguments: Any, status: str) -> None:
        body = {
            "token": token,
            "pipelineExecutionArn": arn,
            "arguments": arguments,
            "status": status,
        }
        self._sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))

    def _run_lambda(
        self, execution: Execution, step: dict[str, Any], scope: Scope
    ) -> dict[str, Any]:
        answer = self._lambda.invoke(
            FunctionName=step["FunctionArn"], Payload=json.dumps(scope.resolve(step["Arguments"]))
        )
        payload = json.loads(answer["Payload"].read() or b"null")
        if answer.get("FunctionError"):
            raise StepFailed(
                f"Lambda {step['FunctionArn'].rsplit(':', 1)[1]}: {payload.get('errorMessage', payload)}"[
                    :REASON_LIMIT
                ]
            )
        values = payload if isinstance(payload, dict) else {}
        outputs = {
            o["OutputName"]: _typed(values.get(o["OutputName"], ""), o["OutputType"])
            for o in step.get("OutputParameters", [])
        }
        execution.steps[step["Name"]]["Metadata"] = {
            "Lambda": {
                "Arn": step["FunctionArn"],
                "OutputParameters": [
                    {"Name": name, "Value": str(value)} for name, value in outputs.items()
                ],
            }
        }
        return {"OutputParameters": outputs}

    def _run_condition(
        self, execution: Execution, step: dict[str, Any], scope: Scope
    ) -> dict[str, Any]:
        met = all(holds(condition, scope) for condition in step["Arguments"]["Conditions"])
        record = execution.steps[step["Name"]]
        record["Metadata"] = {"Condition": {"Outcome": "True" if met else "False"}}
        record["StepStatus"] = "Succeeded"
        self._run_steps(execution, step["Arguments"]["IfSteps" if met else "ElseSteps"], scope)
        return {"Outcome": met}

    def _run_register(
        self, execution: Execution, step: dict[str, Any], scope: Scope
    ) -> dict[str, Any]:
        """As SageMaker does: the group is made when it is missing, the version's name is its own."""
        arguments = scope.resolve(step["Arguments"])
        group = arguments["ModelPackageGroupName"]
        try:
            self._sagemaker.describe_model_package_group(ModelPackageGroupName=group)
        except ClientError:
            self._sagemaker.create_model_package_group(ModelPackageGroupName=group)
        arguments["ModelMetrics"] = {
            key: value for key, value in arguments.get("ModelMetrics", {}).items() if value
        }
        arn = self._sagemaker.create_model_package(**arguments)["ModelPackageArn"]
        execution.steps[step["Name"]]["Metadata"] = {"RegisterModel": {"Arn": arn}}
        return {"ModelPackageArn": arn}

    def _run_fail(self, execution: Execution, step: dict[str, Any], scope: Scope) -> dict[str, Any]:
        message = str(scope.resolve(step["Arguments"]["ErrorMessage"]))
        execution.steps[step["Name"]]["Metadata"] = {"Fail": {"ErrorMessage": message}}
        raise StepFailed(message)

    def _save(self, execution: Execution) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{execution.arn.rsplit('/', 1)[1]}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(execution.to_json()))
        part.replace(file)

    def _load(self) -> None:
        """Executions of earlier clouds; one that was under way ended with its cloud."""
        for file in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            execution = Execution(**json.loads(file.read_text()))
            if execution.status in ("Executing", "Stopping"):
                execution.status, execution.reason = (
                    "Failed",
                    "The local cloud ended while this ran.",
                )
            self._executions[execution.arn] = execution


def _parameters(definition: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    declared = {item["Name"]: item for item in definition.get("Parameters", [])}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ValueError(f"Unknown parameters in the request: {', '.join(unknown)}.")
    missing = sorted(
        name for name, item in declared.items() if name not in given and "DefaultValue" not in item
    )
    if missing:
        raise ValueError(f"Missing parameters: {', '.join(missing)}.")
    return {
        name: _typed(given.get(name, item.get("DefaultValue")), item["Type"])
        for name, item in declared.items()
    }


def _typed(value: Any, kind: str) -> Any:
    """A parameter or output as its declared type."""
    if kind == "Integer":
        return int(value)
    if kind == "Float":
        return float(value)
    if kind == "Boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return str(value)
