"""Journeys that the audit of least privilege records, and that tests of their own look at."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from awsiot import mqtt5_client_builder

from edge.agent.heartbeat import last_will
from edge.config import DeviceConfig, load_config, read_struct
from edge.transports.mqtt import MqttTransport
from edge.transports.provisioning import ProvisioningClaim, enrol
from fl_runtime.run.aws import client
from pipelines.devices import certificates
from pipelines.local.cloud import LocalCloud
from support.waiting import until


def schedule_and_stop(cloud: LocalCloud, pipeline: str, parameters: dict[str, Any]) -> str:
    """What a schedule does, and a pipeline that is stopped while it waits for devices; returns the
    status it ended with.
    """

    def start(**condition: float) -> dict[str, str]:
        request = json.dumps({"pipeline": pipeline, "parameters": parameters, **condition})
        return json.loads(
            client("lambda")
            .invoke(FunctionName=cloud.deployment.function("start"), Payload=request)["Payload"]
            .read()
        )

    assert "enough predictions" in start(when_drift=1.0)["reason"]
    arn = start()["pipeline_execution_arn"]
    sagemaker, steps = client("sagemaker"), client("stepfunctions")
    before = len(
        steps.list_executions(
            stateMachineArn=cloud.deployment.state_machine, statusFilter="RUNNING"
        )["executions"]
    )
    until(
        lambda: (
            before
            or steps.list_executions(
                stateMachineArn=cloud.deployment.state_machine, statusFilter="RUNNING"
            )["executions"]
        )
    )
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    ended = until(
        lambda: (
            (
                s := sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)[
                    "PipelineExecutionStatus"
                ]
            )
            not in ("Executing", "Stopping")
            and s
        )
    )
    return str(ended)


def claim_for(
    cloud: LocalCloud, folder: Path, device: str, fleet: str = "plant"
) -> ProvisioningClaim:
    """A claim file as the operator makes it, its paths as they are here."""
    home = folder / device
    home.mkdir(parents=True, exist_ok=True)
    file = certificates.expect(
        cloud.deployment,
        client("iot"),
        cloud.endpoint(client("kms")),
        fleet,
        [device],
        folder / "claims",
        str(home),
        expires_at=time.time() + 3600.0,
    )[0]
    claims = folder / "claims"
    text = (
        file.read_text()
        .replace(f"{home}/claim/", f"{claims}/current/")
        .replace(f"{home}/ca.pem", f"{claims}/ca.pem")
    )
    file.write_text(text)
    return read_struct(file, ProvisioningClaim, "claim")


def enrolled_by_claim(cloud: LocalCloud, folder: Path, device: str) -> DeviceConfig:
    """A new device's first start."""
    return load_config(asyncio.run(enrol(claim_for(cloud, folder, device))))


def connections_that_end(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows when an MQTT client made after this has stopped; that takes half a second, so that
    whoever does not wait for it is seen.
    """
    ended: list[Any] = []
    made = mqtt5_client_builder.mtls_from_path

    def build(*, on_lifecycle_stopped: Any, **options: Any) -> Any:
        return made(
            on_lifecycle_stopped=lambda data: (
                time.sleep(0.5),
                ended.append(data),
                on_lifecycle_stopped(data),
            ),
            **options,
        )

    monkeypatch.setattr(mqtt5_client_builder, "mtls_from_path", build)
    return ended


def renewed(cloud: LocalCloud, config: DeviceConfig) -> tuple[bytes, bytes, str]:
    """The certificate before and after a rotation on a live connection, and the id of the one it
    was heard with afterwards.
    """
    key = {
        "TableName": cloud.deployment.devices_table,
        "Key": {"fleet": {"S": config.fleet}, "device": {"S": config.device}},
    }
    dynamodb = client("dynamodb")

    async def main() -> str:
        transport = MqttTransport(config, will=last_will(config))
        await transport.connect([f"fl/{config.fleet}/{config.device}/command"], lambda *_: None)
        try:
            await transport.renew()
            # Now and later: the broker speaks the last will of the connection that ended, by
            # nobody's certificate.
            for _ in range(100):
                await transport.publish(*last_will(config))
                await asyncio.sleep(0.1)
                row = dynamodb.get_item(**key).get("Item", {})
                if "certificate" in row:
                    return row["certificate"]["S"]
            raise AssertionError("the rule never wrote the certificate")
        finally:
            await transport.close()

    before = Path(config.certificate).read_bytes()
    heard = asyncio.run(main())
    return before, Path(config.certificate).read_bytes(), heard
