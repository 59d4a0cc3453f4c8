"""The agent of one device: puts its parts together and passes each message to its part.

The process is light (no torch, no flwr): apps run in a subprocess.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge.agent.certificate_rotation import CertificateRotation
from edge.agent.cloud_time import CloudTime
from edge.agent.commands import CommandLoop
from edge.agent.execution import CommandExecution
from edge.agent.freshness import Freshness
from edge.agent.heartbeat import HeartbeatSender, last_will
from edge.agent.jobs import JobsClient
from edge.agent.model_installer import ModelInstaller
from edge.agent.order_gate import OrderGate
from edge.agent.spool import Outbox, Spool
from edge.clock import uptime
from edge.config import DeviceConfig
from edge.identity.trust import Trust
from edge.logs import event
from edge.object_transfer import Objects
from edge.protocol.names import topic
from edge.protocol.text import printable
from edge.serving.model_store import ModelStore
from edge.serving.socket_server import PredictSocket
from edge.training.worker_process import Workers
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

RESTART_SECONDS = 5.0
"""Pause before a part of the agent that failed starts again."""


class _Part(Protocol):
    """A part of the agent with a loop of its own."""

    async def run(self) -> None:
        """Work until cancelled."""


class Agent:
    """One device. Construct it on a running event loop, then ``await run()``.

    Args:
        config: The device.
        transport: Its connection, not open yet.
        objects: Where it downloads weights and uploads updates.
        workers: Runs its apps.
        monotonic: Seconds, including suspend.
        now: Unix time.

    """

    def __init__(
        self,
        config: DeviceConfig,
        transport: Transport,
        objects: Objects,
        workers: Workers,
        *,
        monotonic: Callable[[], float] = uptime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._transport, self._workers = config, transport, workers
        trust = Trust.of(config.trust_file)
        orders = Freshness(config.orders_file)
        time_of = CloudTime(orders.latest)
        models = ModelStore(config.models_dir, objects, trust, config.fleet, now, time_of.passed)
        reply_topic = topic(config.fleet, config.device, "reply")
        outbox = Outbox(Spool(config.spool_dir), transport, reply_topic)
        # Commands and model tests share one worker: a device has memory for one training.
        worker = asyncio.Lock()
        self._commands = CommandLoop(
            topic(config.fleet, config.device, "command"),
            OrderGate(config.fleet, config.device, trust, orders),
            CommandExecution(config, objects, workers, monotonic, now),
            objects,
            outbox,
            worker,
            monotonic,
        )
        self._heartbeats = HeartbeatSender(
            config, transport, models, outbox, self._commands.is_busy
        )
        installer = ModelInstaller(config, transport, models, workers, self._heartbeats, worker)
        self._jobs = JobsClient(transport, config.device, installer.install, time_of)
        self._rotation = CertificateRotation(config, transport, self._commands.is_idle, now)
        self._predictions = PredictSocket(Path(config.home), config.worker_env)

    async def run(self) -> None:
        """Connect and serve until cancelled. Raises TransportError when it cannot connect."""
        topics = [*self._commands.topics, *self._rotation.topics, *self._jobs.topics]
        await self._transport.connect(topics, self._receive)
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in (
                    self._commands,
                    self._heartbeats,
                    self._rotation,
                    self._jobs,
                    self._predictions,
                ):
                    tasks.create_task(_keep_running(part))
        finally:
            await self._workers.stop()
            # The broker sends the last will only for a connection that breaks.
            with contextlib.suppress(TransportError, asyncio.CancelledError):
                await self._transport.publish(*last_will(self._config))
            await self._transport.close()

    def _receive(self, source: str, payload: bytes) -> None:
        """Pass a message to the part that it is for. Must not block."""
        for part in (self._commands, self._jobs, self._rotation):
            if part.receive(source, payload):
                return


async def _keep_running(part: _Part) -> None:
    """Run a part until it ends or is cancelled; start it again after an error.

    An exception in one part would cancel the others, and end the agent. Each part answers for its
    own failures; this is for those that nobody thought of.
    """
    while True:
        try:
            await part.run()
        except Exception as error:  # noqa: BLE001  # see above
            reason, name = printable(f"{type(error).__name__}: {error}"), type(part).__name__
            event(logger, "part-failed", logging.ERROR, part=name, reason=reason)
            await asyncio.sleep(RESTART_SECONDS)
        else:
            return
