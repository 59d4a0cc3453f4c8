"""Promotes a model whose package was approved: MLflow mirrors it, and its rollout begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from edge.typed import convert
from pipelines.handlers.aws_clients import registry
from registry.model_version import Version
from registry.promotion import StateChange, promote, record_approval


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    both = registry()

    def approver(arn: str) -> str:
        return both.sagemaker.get(arn).modified_by

    def begin(version: Version, who: str, why: str) -> None:
        record_approval(both.audit, version, who=who, why=why, at=time.time())
        both.rollouts.begin(version, by=who, reason=why)

    change = convert(package_event["detail"], StateChange)
    return promote(change, both.mlflow, approver, begin)
