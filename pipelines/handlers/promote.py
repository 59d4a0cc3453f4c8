"""EventBridge -> promotion: follows a model package's approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipelines.handlers.aws_clients import registry, set_up_logs
from registry.model_version import Version
from registry.promotion import StateChange, promote


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    set_up_logs()
    both = registry()

    def begin(version: Version, who: str, why: str, override: bool) -> None:
        both.rollouts.begin(version, by=who, reason=why, override=override)

    return promote(msgspec.convert(package_event["detail"], StateChange), both.mlflow, begin)
