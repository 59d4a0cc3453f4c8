"""Steps that only decide: Condition and Fail."""

from __future__ import annotations

from typing import Any

from pipelines.local.sagemaker.definitions.conditions import holds
from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.definitions.values import text
from pipelines.local.sagemaker.outcomes import StepFailed
from pipelines.local.sagemaker.steps.context import StepContext


def decide(step: Step, context: StepContext) -> dict[str, Any]:
    """Evaluate a Condition step: all its conditions must hold."""
    conditions = step["Arguments"]["Conditions"]
    met = all(holds(condition, context.scope) for condition in conditions)
    outcome = {"Outcome": "True" if met else "False"}
    context.describe(step, "Condition", outcome)
    return outcome


def fail(step: Step, context: StepContext) -> dict[str, Any]:
    """Fail with the step's message."""
    message = text(context.scope.resolve(step["Arguments"]["ErrorMessage"]))
    context.describe(step, "Fail", {"ErrorMessage": message})
    raise StepFailed(message)
