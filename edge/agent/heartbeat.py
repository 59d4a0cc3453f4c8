"""Heartbeats: what a device reports about itself every few seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edge.agent.spool import Outbox
from edge.config import DeviceConfig
from edge.logs import event
from edge.memory import usable_memory
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import LACKS_LIMIT, ORDER_VERSION, Heartbeat, seal, seal_heartbeat
from edge.protocol.names import topic
from edge.serving.model_store import ModelStore
from edge.serving.statistics import serving, sweep
from edge.training.app_bundle import AppError, installed_apps, load_app
from edge.training.imports import missing_modules
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

APPS_LIMIT = 50
"""Apps in a heartbeat, as :class:`~edge.protocol.messages.Heartbeat` allows."""
_SUPPLIES = Path("/sys/class/power_supply")
Power = Literal["", "mains", "battery"]


class HeartbeatSender:
    """Publishes heartbeats, and after each the replies that wait for a connection.

    Args:
        config: The device.
        transport: Publishes the heartbeats.
        models: Says which model is in use.
        outbox: Holds the replies.
        is_busy: Whether a command is being carried out.

    """

    def __init__(
        self,
        config: DeviceConfig,
        transport: Transport,
        models: ModelStore,
        outbox: Outbox,
        is_busy: Callable[[], bool],
    ) -> None:
        self._config = config
        self._transport = transport
        self._models = models
        self._outbox = outbox
        self._is_busy = is_busy
        self._topic = topic(config.fleet, config.device, "heartbeat")
        self._boot = secrets.token_hex(8)
        self._lacking = Lacking(config)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if await self.publish():
                await self._outbox.send_waiting()
            await asyncio.sleep(self._config.heartbeat_seconds)

    async def publish(self) -> bool:
        """Publish one heartbeat; False when it was lost, which the next one makes good."""
        try:
            if not self._models.is_known():  # reading the weights takes a while
                await asyncio.to_thread(self._models.usable)
            await self._transport.publish(self._topic, seal_heartbeat(self.heartbeat()))
        except (TransportError, ProtocolError, OSError) as error:
            event(logger, "heartbeat-lost", logging.WARNING, reason=str(error))
            return False
        return True

    def heartbeat(self) -> Heartbeat:
        """Collect the device's state."""
        active, folder = self._models.usable(), self._config.serving_dir
        sweep(folder, active.sequence)
        apps = installed_apps(self._config.apps_dir)[:APPS_LIMIT]
        return Heartbeat(
            state="busy" if self._is_busy() else "idle",
            boot=self._boot,
            apps=apps,
            power=power(),
            free_memory=usable_memory(),
            lacks=self._lacking.of(apps),
            labels=self._config.labels,
            model=active.manifest.model_version if active.manifest else "",
            since=active.since if active.manifest else 0.0,
            serving=serving(folder, active.sequence) if active.manifest else None,
            orders=ORDER_VERSION,
        )


class Lacking:
    """Which modules the installed apps import, and this device does not have.

    Args:
        config: The device.

    """

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._whole: set[str] = set()
        """Apps that lack nothing. Their files do not change, so they are read once."""

    def of(self, apps: list[str]) -> dict[str, list[str]]:
        """Return the missing modules of each app that lacks any, as far as a heartbeat has room."""
        found: dict[str, list[str]] = {}
        for app in apps:
            if app in self._whole:
                continue
            missing = self._missing(app)
            if missing:
                found[app] = missing[:LACKS_LIMIT]
            else:
                self._whole.add(app)
        return dict(list(found.items())[:LACKS_LIMIT])

    def _missing(self, app: str) -> list[str]:
        folder = self._config.apps_dir / app
        # Its worker finds modules there, too.
        path = filter(None, self._config.worker_env.get("PYTHONPATH", "").split(os.pathsep))
        try:
            return missing_modules(folder, load_app(folder).client_app, [*path])
        except (AppError, OSError):  # running it says what is wrong
            return []


def last_will(config: DeviceConfig) -> tuple[str, bytes]:
    """Return topic and payload that the broker publishes when the device disconnects."""
    return topic(config.fleet, config.device, "heartbeat"), seal(Heartbeat(state="offline"))


def power(supplies: Path = _SUPPLIES) -> Power:
    """Return how the device is powered, as Linux knows it; empty when Linux does not know.

    https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power
    """
    found: Power = ""
    for supply in sorted(supplies.glob("*")):
        kind = _text(supply / "type")
        if kind in ("Mains", "USB") and _text(supply / "online") == "1":
            return "mains"
        # The scope "Device" is a peripheral's battery, such as a mouse's.
        if kind == "Battery" and _text(supply / "scope") != "Device":
            found = "battery"
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
