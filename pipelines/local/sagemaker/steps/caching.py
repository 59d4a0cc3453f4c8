"""Step caching: a step with the attributes of an earlier one that succeeded takes its result.

https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching.html
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.executions import PipelineExecution

KEYS = {
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "Training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
}
"""The attributes that decide, by the step's type. What lies at an input's address is not looked at:
https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html
"""
_DURATION = re.compile(
    r"p?(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:t(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?)?",
    re.IGNORECASE,
)
_UNITS = (365 * 86_400, 30 * 86_400, 7 * 86_400, 86_400, 3_600, 60, 1)


def seconds_of(duration: str) -> float:
    """Seconds of an ISO 8601 duration as SageMaker writes them: ``30d``, ``T16m``, ``PT1H``.

    Raises:
        ValueError: It is not one.

    """
    found = _DURATION.fullmatch(duration)
    if found is None or not any(found.groups()):
        raise ValueError(f"ExpireAfter {duration!r} is not a duration like 30d, T16m or PT1H.")
    return float(sum(int(n or 0) * unit for n, unit in zip(found.groups(), _UNITS, strict=True)))


def cache_key(step: Step, arguments: dict[str, Any]) -> str:
    """What a step's earlier execution must equal; empty: it is not cached.

    Args:
        step: The step, with its CacheConfig.
        arguments: Its arguments, with references replaced.

    """
    if step["Type"] not in KEYS or not step.get("CacheConfig", {}).get("Enabled"):
        return ""
    own = {name: arguments.get(name) for name in KEYS[step["Type"]]}
    document = json.dumps([step["Name"], step["Type"], own], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def cached(
    step: Step, key: str, executions: Iterable[PipelineExecution], now: float
) -> tuple[str, dict[str, Any]] | None:
    """ARN of the newest execution with the same step, and what that step gave. None: run it.

    Args:
        step: The step, whose CacheConfig says how old a result may be.
        key: Of :func:`cache_key`.
        executions: Of the same pipeline, newest first.
        now: Seconds since the epoch.

    """
    expires = step["CacheConfig"].get("ExpireAfter")
    oldest = now - seconds_of(expires) if expires else 0.0
    for execution in executions:
        with execution.lock:
            found = execution.results.get(step["Name"], {})
        if found.get("Key") == key and found["At"] >= oldest:
            return execution.arn, found
    return None
