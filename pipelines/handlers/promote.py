"""EventBridge -> promotion: follows a model package's approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fl_runtime.aws import client, names_from_environment
from pipelines.handlers.wiring import set_up_logs
from registry.mlflow_registry import MlflowRegistry
from registry.promotion import Devices, StateChange, promote
from registry.sagemaker_registry import SageMakerRegistry


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    set_up_logs()
    devices = Devices(client("dynamodb"), names_from_environment().devices_table, client("iot-data"))
    change = msgspec.convert(package_event["detail"], StateChange)
    return promote(change, MlflowRegistry(), SageMakerRegistry(client("sagemaker")), devices, client("s3"))
