"""EventBridge -> promotion: follows a model package's approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelines.handlers.aws_clients import set_up_logs
from registry.mlflow_registry import Version
from registry.promotion import StateChange, promote
from registry.rollout.service import Rollouts


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    set_up_logs()
    rollouts = Rollouts()

    def begin(version: Version, who: str, why: str, override: bool) -> None:
        rollouts.begin(version, by=who, reason=why, override=override)

    return promote(msgspec.convert(package_event["detail"], StateChange), rollouts.mlflow, begin)
