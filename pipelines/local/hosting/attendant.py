"""The thread that serves those who are away: devices, the queue, and the cloud's own end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.errors import MLEdgeOpsError
from edge.logs import event
from fl_runtime.run.aws import S3Objects
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients
from pipelines.local.home import is_free
from pipelines.local.hosting.device_host import DeviceHost
from pipelines.local.hosting.tickets import Ticket, Tickets
from pipelines.local.hosting.wishes import Wishes
from pipelines.run.executions import Executions

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
STARTING_SECONDS = 30.0
"""A queued run that has started keeps its fleet busy so long, until its item is in the table."""


class Attendant:
    """Serves a cloud until :meth:`stop`; ``serve`` needs a thread of its own."""

    def __init__(
        self,
        cloud: LocalCloud,
        client: Callable[[str], Any],
        *,
        idle_seconds: float,
        on_idle: Callable[[], None],
    ) -> None:
        """``idle_seconds``: ``on_idle`` is called once nobody has used the cloud for so long; 0:
        never.
        """
        self._cloud = cloud
        self._scheduler = client("scheduler")
        self._executions = Executions(client("sagemaker"))
        self._idle_seconds = idle_seconds
        self._on_idle = on_idle
        self._wishes = Wishes(cloud.home, cloud.deployment, client)
        clients = FleetClients(iot=client("iot"), kms=client("kms"), dynamodb=client("dynamodb"))
        objects = S3Objects(client("s3"), cloud.deployment.bucket)
        self._devices = DeviceHost(cloud, clients, objects)
        self._tickets = Tickets(cloud.home.queue)
        self._called: dict[str, float] = {}
        self._busy_at = time.time()
        self._stop = threading.Event()

    def serve(self) -> None:
        """Look and act until :meth:`stop`; what fails is logged and tried again."""
        try:
            while not self._stop.wait(POLL_SECONDS):
                try:
                    self._look()
                except (ClientError, BotoCoreError, MLEdgeOpsError, OSError) as error:
                    event(logger, "hosting-failed", logging.WARNING, reason=str(error))
        finally:
            self._devices.close()

    def stop(self) -> None:
        """Make :meth:`serve` end the devices and return."""
        self._stop.set()

    def _look(self) -> None:
        wishes = self._wishes.fleets()
        self._devices.provide(wishes)
        self._call_next(set(wishes))
        if wishes or self._wishes.executions() or self._tickets.waiting():
            self._busy_at = time.time()
        if self._idle_seconds and self._is_idle():
            event(logger, "cloud-idle", seconds=self._idle_seconds)
            self._on_idle()

    def _call_next(self, busy: set[str]) -> None:
        """Start a queued run whose fleet is free."""
        now = time.monotonic()
        self._called = {f: at for f, at in self._called.items() if now - at < STARTING_SECONDS}
        for fleet in busy & self._called.keys():
            del self._called[fleet]  # its item is in the table
        turns = self._cloud.home.fleet_turn
        held = {t.fleet for t in self._tickets.waiting() if not is_free(turns(t.fleet))}
        called = self._tickets.call(busy | held | self._called.keys(), self._start)
        if called is not None and called.execution:
            self._called[called.fleet] = now

    def _start(self, ticket: Ticket) -> str:
        try:
            return self._executions.start(ticket.pipeline, ticket.parameters)
        except ClientError as error:
            raise UsageError(f"The queued run could not be started: {error}") from error

    def _is_idle(self) -> bool:
        home = self._cloud.home
        used = home.used_file.stat().st_mtime if home.used_file.is_file() else 0.0
        if time.time() - max(used, self._busy_at) < self._idle_seconds:
            return False
        if not is_free(home.users_lock):
            return False
        group = self._cloud.deployment.schedule_group
        # A schedule is something to wait for.
        return not self._scheduler.list_schedules(GroupName=group)["Schedules"]
