"""Devices of the local cloud that a test speaks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.agent.heartbeat import last_will
from edge.config import DeviceConfig, load_config
from edge.transports.mqtt import MqttTransport
from fl_runtime.run.aws import client
from pipelines.devices.provisioning import enrol
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import device_config


def device(cloud: LocalCloud, index: int, fleet: str = "lab") -> DeviceConfig:
    """Enrol device ``index`` of a fleet of four; it does not run."""
    config = device_config(cloud, fleet, index, 4)
    enrol(client("iot"), cloud.deployment.device_policy, cloud.endpoint(client("kms")), config)
    return load_config(Path(config.home) / "device.json")


def with_mqtt(config: DeviceConfig, work: Callable[[MqttTransport, list], Any]) -> list:
    """Connect as a device, do ``work(transport, heard)``, and return the commands heard."""

    async def main() -> list:
        heard: list = []
        transport = MqttTransport(config, will=last_will(config))
        await transport.connect(
            [f"fl/{config.fleet}/{config.device}/command"],
            lambda topic, payload: heard.append((topic, payload)),
        )
        try:
            await work(transport, heard)
        finally:
            await transport.close()
        return heard

    return asyncio.run(main())
