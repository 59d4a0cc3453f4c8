"""EventBridge -> promotion: follows a model package's approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fl_runtime.aws import client
from pipelines.handlers.wiring import set_up_logs
from pipelines.rollouts import Rollouts
from registry.mlflow_registry import MlflowRegistry, Version
from registry.promotion import StateChange, promote
from registry.sagemaker_registry import SageMakerRegistry


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    set_up_logs()
    mlflow = MlflowRegistry()
    rollouts = Rollouts(mlflow, SageMakerRegistry(client("sagemaker")))

    def begin(version: Version, who: str, why: str) -> None:
        rollouts.begin(version, by=who, reason=why)

    return promote(msgspec.convert(package_event["detail"], StateChange), mlflow, begin)
