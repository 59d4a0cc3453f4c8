"""Callback steps: a token goes out by SQS, and the step waits for its answer."""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.outcomes import ExecutionStopped, StepFailed
from pipelines.local.sagemaker.steps.context import StepContext, outputs_of, pairs

TOKEN_LENGTH = 10
"""Of a callback's token; SageMaker's have 10 characters too."""


def call_back(step: Step, context: StepContext) -> dict[str, Any]:
    """Send the token and wait. A stop is told to whoever holds the token, and waits for its answer.

    Raises:
        StepFailed: The answer is a failure.
        ExecutionStopped: The execution is stopping, and the answer has come.

    """
    queue = context.scope.resolve(step["SqsQueueUrl"])
    arguments = context.scope.resolve(step.get("Arguments", {}))
    alphabet = string.ascii_letters + string.digits
    token = "".join(secrets.choice(alphabet) for _ in range(TOKEN_LENGTH))
    execution = context.execution
    callback = context.callbacks.add(token, execution.arn)
    metadata: dict[str, Any] = {
        "CallbackToken": token,
        "SqsQueueUrl": queue,
        "OutputParameters": [],
    }
    context.describe(step, "Callback", metadata)
    message = {"token": token, "pipelineExecutionArn": execution.arn, "arguments": arguments}

    def send(status: str) -> None:
        body = json.dumps({**message, "status": status})
        context.clients["sqs"].send_message(QueueUrl=queue, MessageBody=body)

    send("Executing")
    while not callback.answered.wait(0.1):
        if execution.stopping.is_set():
            send("Stopping")
            callback.answered.wait()
    if execution.stopping.is_set():
        raise ExecutionStopped(callback.failure or "")
    if callback.failure is not None:
        raise StepFailed(callback.failure)
    context.describe(step, "Callback", {**metadata, "OutputParameters": pairs(callback.outputs)})
    return {"OutputParameters": outputs_of(step, callback.outputs)}
