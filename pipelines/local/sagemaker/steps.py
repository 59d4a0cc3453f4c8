"""The step types of a pipeline definition: Callback, Lambda, Condition, RegisterModel, Fail."""

from __future__ import annotations

import json
import secrets
import string
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from pipelines.local.home import LocalCloudError
from pipelines.local.sagemaker.executions import Callbacks, PipelineExecution
from pipelines.local.sagemaker.values import Scope, holds, typed

TOKEN_LENGTH = 10
"""Of a callback's token; SageMaker's have 10 characters too."""
REASON_LIMIT = 256

Step = dict[str, Any]


class StepFailed(LocalCloudError):
    """A step failed; the message is the reason that the execution shows."""

    code = "step-failed"


class ExecutionStopped(LocalCloudError):
    """The execution was stopped."""

    code = "execution-stopped"


class StepRunner:
    """Runs the steps of one execution, in order."""

    def __init__(
        self,
        execution: PipelineExecution,
        clients: dict[str, Any],
        callbacks: Callbacks,
        save: Callable[[PipelineExecution], None],
    ) -> None:
        """``clients``: by service (sqs, lambda, sagemaker). ``save`` is called after a change."""
        self._execution = execution
        self._scope = Scope(execution.parameters, execution.arn, execution.pipeline)
        self._clients = clients
        self._callbacks = callbacks
        self._save = save
        self._executors: dict[str, Callable[[Step], dict[str, Any]]] = {
            "Callback": self._callback,
            "Lambda": self._invoke_lambda,
            "Condition": self._branch,
            "RegisterModel": self._register,
            "Fail": self._fail,
        }

    def run(self, steps: list[Step]) -> None:
        """Run steps in the order in which the SDK writes them, which respects dependencies.

        Raises:
            StepFailed: A step failed; later ones are not run.
            ExecutionStopped: The execution was stopped.

        """
        for step in steps:
            if self._execution.stopping.is_set():
                raise ExecutionStopped
            self._run_one(step)

    def _run_one(self, step: Step) -> None:
        name, kind = step["Name"], step["Type"]
        record = self._execution.steps[name] = {
            "StepName": name,
            "StepStatus": "Executing",
            "StartTime": time.time(),
            "Metadata": {},
        }
        self._save(self._execution)
        try:
            if kind not in self._executors:
                raise StepFailed(
                    f"The local cloud does not run steps of type {kind} (step {name})."
                )
            self._scope.outputs[name] = self._executors[kind](step)
            record["StepStatus"] = "Succeeded"
        except (StepFailed, ExecutionStopped) as error:
            stopped = isinstance(error, ExecutionStopped)
            record["StepStatus"] = "Stopped" if stopped else "Failed"
            record["FailureReason"] = str(error)
            raise
        finally:
            record["EndTime"] = time.time()

    def _callback(self, step: Step) -> dict[str, Any]:
        """Send the token by SQS and wait for its answer."""
        alphabet = string.ascii_letters + string.digits
        token = "".join(secrets.choice(alphabet) for _ in range(TOKEN_LENGTH))
        callback = self._callbacks.add(token, self._execution.arn)
        metadata: dict[str, Any] = {
            "CallbackToken": token,
            "SqsQueueUrl": step["SqsQueueUrl"],
            "OutputParameters": [],
        }
        self._describe(step, "Callback", metadata)
        self._save(self._execution)
        message = {
            "token": token,
            "pipelineExecutionArn": self._execution.arn,
            "arguments": self._scope.resolve(step["Arguments"]),
        }
        self._send(step, {**message, "status": "Executing"})
        while not callback.answered.wait(0.1):
            if self._execution.stopping.is_set():
                self._send(step, {**message, "status": "Stopping"})
                callback.answered.wait()
        if self._execution.stopping.is_set():
            raise ExecutionStopped(callback.failure or "")
        if callback.failure is not None:
            raise StepFailed(callback.failure)
        metadata["OutputParameters"] = _pairs(callback.outputs)
        return {"OutputParameters": _outputs(step, callback.outputs)}

    def _send(self, step: Step, body: dict[str, Any]) -> None:
        self._clients["sqs"].send_message(
            QueueUrl=step["SqsQueueUrl"], MessageBody=json.dumps(body)
        )

    def _invoke_lambda(self, step: Step) -> dict[str, Any]:
        arn, arguments = step["FunctionArn"], self._scope.resolve(step["Arguments"])
        answer = self._clients["lambda"].invoke(FunctionName=arn, Payload=json.dumps(arguments))
        payload = json.loads(answer["Payload"].read() or b"null")
        if answer.get("FunctionError"):
            reason = f"Lambda {arn.rsplit(':', 1)[1]}: {payload.get('errorMessage', payload)}"
            raise StepFailed(reason[:REASON_LIMIT])
        outputs = _outputs(step, payload if isinstance(payload, dict) else {})
        self._describe(step, "Lambda", {"Arn": arn, "OutputParameters": _pairs(outputs)})
        return {"OutputParameters": outputs}

    def _branch(self, step: Step) -> dict[str, Any]:
        """Evaluate the conditions, then run the steps of the branch that is taken."""
        arguments = step["Arguments"]
        met = all(holds(condition, self._scope) for condition in arguments["Conditions"])
        self._describe(step, "Condition", {"Outcome": "True" if met else "False"})
        self._execution.steps[step["Name"]]["StepStatus"] = "Succeeded"
        self.run(arguments["IfSteps" if met else "ElseSteps"])
        return {"Outcome": met}

    def _register(self, step: Step) -> dict[str, Any]:
        """Create a model package; as in SageMaker, its group is created when it is missing."""
        sagemaker = self._clients["sagemaker"]
        arguments = self._scope.resolve(step["Arguments"])
        group = arguments["ModelPackageGroupName"]
        try:
            sagemaker.describe_model_package_group(ModelPackageGroupName=group)
        except ClientError:
            sagemaker.create_model_package_group(ModelPackageGroupName=group)
        # The SDK writes empty metrics, which the API's own validation refuses.
        given = arguments.get("ModelMetrics", {})
        arguments["ModelMetrics"] = {key: value for key, value in given.items() if value}
        arn = sagemaker.create_model_package(**arguments)["ModelPackageArn"]
        self._describe(step, "RegisterModel", {"Arn": arn})
        return {"ModelPackageArn": arn}

    def _fail(self, step: Step) -> dict[str, Any]:
        message = str(self._scope.resolve(step["Arguments"]["ErrorMessage"]))
        self._describe(step, "Fail", {"ErrorMessage": message})
        raise StepFailed(message)

    def _describe(self, step: Step, kind: str, metadata: dict[str, Any]) -> None:
        """What ListPipelineExecutionSteps shows of a step."""
        self._execution.steps[step["Name"]]["Metadata"] = {kind: metadata}


def _outputs(step: Step, values: dict[str, Any]) -> dict[str, Any]:
    """A step's declared outputs in their types; one that was not given is an empty value."""
    return {
        output["OutputName"]: typed(values.get(output["OutputName"], ""), output["OutputType"])
        for output in step.get("OutputParameters", [])
    }


def _pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": str(value)} for name, value in values.items()]
