"""The devices of a cloud that outlives its starter: they come when a run or a rollout wants them.

On AWS devices run by themselves. Here somebody has to start them, and a notebook's kernel that did
would take them along when it ends.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.logs import event
from edge.training.app_bundle import AppError, FlowerApp, unpack
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import app_key
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients, device_config, enrolled, install, running_fleet
from pipelines.local.home import is_free
from pipelines.local.hosting.wishes import Wish

logger = logging.getLogger(__name__)

LINGER_SECONDS = 300.0
"""Devices stay so long after the last run: the next one finds them."""
AGAIN_SECONDS = 3.0
"""Between two tries to bring a fleet up."""


@dataclass
class HostedFleet:
    """A fleet whose devices run here."""

    devices: int
    apps: set[str]
    process: subprocess.Popen[bytes]
    stack: contextlib.ExitStack
    wanted_at: float


class DeviceHost:
    """Brings fleets up and down as :class:`Wish` says. Not for several threads."""

    def __init__(
        self,
        cloud: LocalCloud,
        clients: FleetClients,
        objects: S3Objects,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cloud = cloud
        self._clients = clients
        self._objects = objects
        self._clock = clock
        self._fleets: dict[str, HostedFleet] = {}
        self._not_before: dict[str, float] = {}

    def provide(self, wishes: dict[str, Wish]) -> None:
        """Bring up what is wanted and is not up yet; end what nobody has wanted for a while."""
        now = self._clock()
        for fleet, wish in wishes.items():
            if now >= self._not_before.get(fleet, now):
                try:
                    self._provide(fleet, wish)
                except (AppError, ObjectMissing, OSError) as error:
                    self._put_off(fleet, str(error))
        for fleet, hosted in list(self._fleets.items()):
            if fleet in wishes:
                hosted.wanted_at = now
            elif now - hosted.wanted_at > LINGER_SECONDS:
                self._end(fleet)

    def close(self) -> None:
        """End all devices."""
        for fleet in list(self._fleets):
            self._end(fleet)

    def _provide(self, fleet: str, wish: Wish) -> None:
        hosted = self._fleets.get(fleet)
        if hosted is not None and hosted.process.poll() is not None:
            self._end(fleet)
            self._put_off(fleet, f"the devices ended with code {hosted.process.returncode}")
            return
        devices = wish.devices or (hosted.devices if hosted else enrolled(self._cloud, fleet))
        if hosted is not None and hosted.devices == devices:
            self._add_app(hosted, fleet, wish.app)
            return
        # A device knows how many share the data with it: another number is another configuration.
        self._end(fleet)
        if devices and is_free(self._cloud.home.devices / fleet / "lock"):
            self._bring_up(fleet, devices, wish.app)
        else:  # somebody else runs them
            self._not_before[fleet] = self._clock() + AGAIN_SECONDS

    def _bring_up(self, fleet: str, devices: int, digest: str) -> None:
        with contextlib.ExitStack() as stack:
            app = self._app(digest, stack) if digest else None
            process = stack.enter_context(
                running_fleet(self._cloud, self._clients, fleet, devices, app)
            )
            if process is not None:
                apps = {digest} if digest else set()
                left = stack.pop_all()
                self._fleets[fleet] = HostedFleet(devices, apps, process, left, self._clock())
                event(logger, "fleet-hosted", fleet=fleet, devices=devices)

    def _add_app(self, hosted: HostedFleet, fleet: str, digest: str) -> None:
        """Install another app on devices that run."""
        if not digest or digest in hosted.apps:
            return
        with contextlib.ExitStack() as stack:
            app = self._app(digest, stack)
            for index in range(hosted.devices):
                install(app, device_config(self._cloud, fleet, index, hosted.devices).apps_dir)
        hosted.apps.add(digest)

    def _app(self, digest: str, stack: contextlib.ExitStack) -> FlowerApp:
        """An app out of the bucket, in a folder that lasts as long as the stack."""
        folder = Path(tempfile.mkdtemp(prefix="app-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return unpack(self._objects.get(app_key(digest)), folder / "app", digest)

    def _end(self, fleet: str) -> None:
        hosted = self._fleets.pop(fleet, None)
        if hosted is not None:
            hosted.stack.close()

    def _put_off(self, fleet: str, reason: str) -> None:
        self._not_before[fleet] = self._clock() + AGAIN_SECONDS
        event(logger, "fleet-not-hosted", logging.WARNING, fleet=fleet, reason=reason)
