"""Promotes a model whose package was approved: MLflow mirrors it, and its rollout begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelines.handlers.aws_clients import registry
from registry.model_version import Version
from registry.promotion import StateChange, promote


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    both = registry()

    def begin(version: Version, who: str, why: str, override: bool) -> None:
        both.rollouts.begin(version, by=who, reason=why, override=override)

    return promote(msgspec.convert(package_event["detail"], StateChange), both.mlflow, begin)
