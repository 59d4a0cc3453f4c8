"""Lambda steps."""

from __future__ import annotations

import json
from typing import Any

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.outcomes import StepFailed
from pipelines.local.sagemaker.steps.context import StepContext, outputs_of, pairs

REASON_LIMIT = 256


def invoke(step: Step, context: StepContext) -> dict[str, Any]:
    """Invoke the function with the step's arguments; its answer holds the outputs.

    Raises:
        StepFailed: The function raised.

    """
    arn = context.scope.resolve(step["FunctionArn"])
    payload = json.dumps(context.scope.resolve(step.get("Arguments", {})))
    answer = context.clients["lambda"].invoke(FunctionName=arn, Payload=payload)
    given = json.loads(answer["Payload"].read() or b"null")
    if answer.get("FunctionError"):
        message = given.get("errorMessage", given) if isinstance(given, dict) else given
        raise StepFailed(f"Lambda {arn.rsplit(':', 1)[-1]}: {message}"[:REASON_LIMIT])
    outputs = outputs_of(step, given if isinstance(given, dict) else {})
    context.describe(step, "Lambda", {"Arn": arn, "OutputParameters": pairs(outputs)})
    return {"OutputParameters": outputs}
