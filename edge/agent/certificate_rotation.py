"""Certificate rotation: by age, or when the device shadow asks for it.

The shadow's ``certificate_after`` (Unix time) asks each device to replace a certificate issued
before it. https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-mqtt.html
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge.config import DeviceConfig
from edge.identity.credentials import issued_at
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.text import convert, parse_json, printable
from edge.transports import Transport, TransportError

logger = logging.getLogger(__name__)

CHECK_SECONDS = 3600.0
"""How often the certificate's age is looked at."""
IDLE_SECONDS = 1.0
"""How often a rotation that is due looks whether the device is idle."""
_WAITING = 4


class Desired(msgspec.Struct):
    """``state.desired`` of a device's shadow, as far as an agent acts on it."""

    certificate_after: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    """Unix time: a certificate issued before it is to be renewed."""


class _Document(msgspec.Struct):
    state: dict[str, Any] = {}


def parse_shadow(payload: bytes) -> Desired:
    """Parse a shadow document or a delta. Raises ProtocolError.

    ``get/accepted`` has the desired state under ``desired``; a delta is the desired state itself.
    """
    document: _Document = parse_json(payload, _Document, "The shadow")
    return convert(document.state.get("desired", document.state), Desired, "The shadow")


class CertificateRotation:
    """Renews the device's certificate, never in the middle of a command.

    Args:
        config: The device.
        transport: Carries shadow messages, and renews.
        is_idle: Whether no command runs or waits.
        now: Unix time.
        check_seconds: How often the certificate's age is looked at.

    """

    def __init__(
        self,
        config: DeviceConfig,
        transport: Transport,
        is_idle: Callable[[], bool],
        now: Callable[[], float],
        *,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._config = config
        self._transport = transport
        self._is_idle = is_idle
        self._now = now
        self._check_seconds = check_seconds
        self._shadow = f"$aws/things/{config.device}/shadow"
        self._documents: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._issued_after, self._followed = 0.0, 0.0
        self._check_now = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        """Topics that the device must subscribe to."""
        return [f"{self._shadow}/update/delta", f"{self._shadow}/get/accepted"]

    def receive(self, source: str, payload: bytes) -> bool:
        """Accept a message; False when it is not about the shadow. Must not block."""
        if source not in self.topics:
            return False
        # A dropped document is no loss: the next change sends the whole delta again.
        with contextlib.suppress(asyncio.QueueFull):
            self._documents.put_nowait(payload)
        return True

    async def run(self) -> None:
        """Follow the shadow and the certificate's age until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_shadow())
            tasks.create_task(self._renew_when_due())

    async def _follow_shadow(self) -> None:
        # Changes made while the device was offline come with the whole document only.
        with contextlib.suppress(TransportError):
            await self._transport.publish(f"{self._shadow}/get", b"{}")
        while True:
            try:
                desired = parse_shadow(await self._documents.get())
            except ProtocolError as error:
                event(logger, "shadow-refused", logging.WARNING, reason=str(error))
                continue
            if desired.certificate_after is not None:
                self._issued_after = desired.certificate_after
                self._check_now.set()

    async def _renew_when_due(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_seconds):
                    await self._check_now.wait()
            self._check_now.clear()
            try:
                await self._renew_if_due()
            except Exception as error:  # noqa: BLE001  # whatever it is, the old certificate stays
                reason = printable(f"{type(error).__name__}: {error}")
                event(logger, "certificate-not-renewed", logging.ERROR, reason=reason)

    async def _renew_if_due(self) -> None:
        issued_after = self._issued_after
        if not self._is_due(issued_after):
            return
        while not self._is_idle():
            await asyncio.sleep(IDLE_SECONDS)
        await self._transport.renew()
        # A request is followed once: its time may lie in AWS's future, by a mistake.
        self._followed = issued_after
        event(logger, "certificate-renewed", device=self._config.device)

    def _is_due(self, issued_after: float) -> bool:
        if not self._config.provisioning_template or not self._config.certificate:
            return False
        certificate = Path(self._config.certificate)
        issued, now = issued_at(certificate).timestamp(), self._now()
        asked = issued_after > self._followed and issued < issued_after
        # The age is measured by one clock where that is possible: AWS's date and a clock that is a
        # year ahead would give a new certificate every hour.
        stored = certificate.stat().st_mtime
        since = max(issued, stored) if stored <= now else issued
        return asked or now - since > self._config.rotate_days * 86_400
