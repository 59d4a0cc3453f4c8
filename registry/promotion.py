"""What follows from an approval: MLflow's alias moves, and every device's shadow names the champion."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from edge.logs import event
from registry.mlflow_registry import APPROVAL_TAG, PACKAGE_TAG, REASON_TAG, MlflowRegistry, Version
from registry.sagemaker_registry import RegistryError, SageMakerRegistry

logger = logging.getLogger(__name__)

URL_SECONDS = 7 * 86_400
"""The longest a presigned URL may live; a device away for longer is caught up by the next promotion."""


class StateChange(msgspec.Struct, rename="pascal"):
    """``detail`` of EventBridge's "SageMaker Model Package State Change".

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    """

    model_package_arn: str
    model_package_group_name: str
    model_approval_status: str
    approval_description: str = ""


class Devices:
    """Device shadows of a fleet."""

    def __init__(self, dynamodb: Any, table: str, iot_data: Any) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._iot_data = iot_data

    def tell(self, fleet: str, champion: dict[str, Any]) -> list[str]:
        """Set ``desired.champion`` in the shadow of every known device of a fleet; returns their names."""
        payload = msgspec.json.encode({"state": {"desired": {"champion": champion}}})
        told = []
        for device in self._names(fleet):
            self._iot_data.update_thing_shadow(thingName=device, payload=payload)
            told.append(device)
        return told

    def _names(self, fleet: str) -> list[str]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table, KeyConditionExpression="fleet = :fleet", ExpressionAttributeValues={":fleet": {"S": fleet}}
        )
        return [row["device"]["S"] for page in pages for row in page["Items"]]


def promote(change: StateChange, mlflow: MlflowRegistry, sagemaker: SageMakerRegistry, devices: Devices, s3: Any) -> dict[str, Any]:
    """Mirror one state change. Idempotent: the same event twice changes nothing more."""
    version = mlflow.by_tag(change.model_package_group_name, PACKAGE_TAG, change.model_package_arn)
    if version is None:
        # The package is younger than its link: the link step runs next and starts as pending.
        event(logger, "promotion-ignored", model_package_arn=change.model_package_arn, reason="no MLflow version carries this package's ARN")
        return {"promoted": False}
    mlflow.set_tags(version.name, version.version, {APPROVAL_TAG: change.model_approval_status, REASON_TAG: change.approval_description})
    if change.model_approval_status != "Approved":
        return {"promoted": False, "approval": change.model_approval_status}
    told = make_champion(version, mlflow, sagemaker, devices, s3)
    return {"promoted": True, "version": version.version, "devices": told}


def make_champion(version: Version, mlflow: MlflowRegistry, sagemaker: SageMakerRegistry, devices: Devices, s3: Any) -> list[str]:
    """Move the alias and tell the devices; returns their names. Also the way back: nothing is registered anew."""
    mlflow.set_champion(version.name, version.version)
    told = _roll_out(version, sagemaker, devices, s3)
    event(logger, "promoted", model=version.name, version=version.version, devices=len(told))
    return told


def earlier(versions: list[Version], champion: Version | None, wanted: Version | None) -> Version:
    """The approved version to go back to: the one wanted, else the newest approved before the champion.

    Raises RegistryError when there is none, or the one wanted may not be champion.
    """
    if wanted is not None:
        if wanted.champion:
            raise RegistryError(f"{wanted.name}/{wanted.version} is champion already; nothing was changed.")
        if wanted.approval != "Approved":
            raise RegistryError(f"{wanted.name}/{wanted.version} is {wanted.approval}: only an approved version can be champion.")
        return wanted
    if champion is None:
        raise RegistryError("No version is champion, so there is nothing to roll back from.")
    before = [v for v in versions if v.name == champion.name and v.approval == "Approved" and int(v.version) < int(champion.version)]
    if not before:
        raise RegistryError(f"There is no approved version before {champion.name}/{champion.version}: nothing to roll back to.")
    return max(before, key=lambda v: int(v.version))


def _roll_out(version: Version, sagemaker: SageMakerRegistry, devices: Devices, s3: Any) -> list[str]:
    """Point the fleet that trained the model at its weights, by a presigned URL and their digest."""
    package = sagemaker.get(version.model_package_arn)
    bucket, _, key = package.model_data.removeprefix("s3://").partition("/")
    weights = key.replace("model.tar.gz", "model.safetensors")
    size = s3.head_object(Bucket=bucket, Key=weights)["ContentLength"]
    run = msgspec.json.decode(s3.get_object(Bucket=bucket, Key=f"runs/{version.run}/run.json")["Body"].read())
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": weights}, ExpiresIn=URL_SECONDS)
    model = {"digest": version.model_digest, "size": size, "url": url}
    return devices.tell(run["fleet"], {"version": f"{version.name}/{version.version}", "model": model})
