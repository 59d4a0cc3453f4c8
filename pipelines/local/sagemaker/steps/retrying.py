"""Retry policies: which errors of a step are tried again, when, and how often.

https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.outcomes import ExecutionStopped, JobLost

RETRIED_STEPS = ("Processing", "Training", "Model", "RegisterModel")
"""Those of our steps that take RetryPolicies, by the definition's schema."""
_THROTTLING = ("Throttling", "ThrottlingException", "TooManyRequestsException", "SlowDown")

T = TypeVar("T")


def exception_type(error: Exception) -> str:
    """SageMaker's name for what happened, as retry policies list it; empty: never tried again."""
    if isinstance(error, JobLost):
        return "SageMaker.JOB_INTERNAL_ERROR"
    if isinstance(error, HTTPClientError | UnreachableError):
        return "Step.SERVICE_FAULT"
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _THROTTLING:
            return "Step.THROTTLING"
        if code == "ResourceLimitExceeded":
            return "SageMaker.RESOURCE_LIMIT"
        return "Step.SERVICE_FAULT" if status >= 500 else ""
    return ""


def retried(
    step: Step,
    attempt: Callable[[int], T],
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> T:
    """Call ``attempt`` with 1, 2, … until it succeeds or no policy of the step allows another.

    Args:
        step: The step with its RetryPolicies.
        attempt: One try.
        wait: Waits some seconds; True: the execution is to stop.
        clock: Seconds, for policies that expire.

    Raises:
        ExecutionStopped: It is to stop, between two attempts.

    """
    policies = step.get("RetryPolicies", []) if step["Type"] in RETRIED_STEPS else []
    used, number, began = [0] * len(policies), 1, clock()
    while True:
        try:
            return attempt(number)
        except Exception as error:
            at = _policy_for(policies, exception_type(error))
            if at is None or not _allows(policies[at], used[at], clock() - began):
                raise
        policy = policies[at]
        pause = policy.get("IntervalSeconds", 1) * policy.get("BackoffRate", 2.0) ** used[at]
        used[at] += 1
        number += 1
        if wait(pause):
            raise ExecutionStopped


def _policy_for(policies: list[dict[str, Any]], kind: str) -> int | None:
    """Index of the first policy that lists an exception type."""
    for at, policy in enumerate(policies):
        listed = policy["ExceptionType"]
        if kind and kind in ([listed] if isinstance(listed, str) else listed):
            return at
    return None


def _allows(policy: dict[str, Any], used: int, seconds: float) -> bool:
    attempts, minutes = policy.get("MaxAttempts"), policy.get("ExpireAfterMin")
    if attempts is not None and used >= attempts:
        return False
    return minutes is None or seconds < 60 * minutes
