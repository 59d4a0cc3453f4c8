"""A certificate is renewed when it is old or the shadow asks, and never during a command."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.certificates import self_signed
from fakes.devices import device_config
from fakes.transport import MemoryTransport

from edge.agent import certificate_rotation
from edge.agent.certificate_rotation import CertificateRotation, parse_shadow
from edge.protocol.errors import ProtocolError
from edge.transports import TransportError

DELTA, ACCEPTED = "$aws/things/d0/shadow/update/delta", "$aws/things/d0/shadow/get/accepted"
OLD = b'{"state": {"certificate_after": 1.0}}'
YOUNGER = b'{"state": {"desired": {"certificate_after": 9e9}}}'


def rotation(
    folder: Path,
    transport: MemoryTransport,
    is_idle: Callable[[], bool] = lambda: True,
    now: Callable[[], float] = time.time,
    **settings: object,
) -> CertificateRotation:
    fields = {
        "certificate": self_signed(folder, days=10)["certificate"],
        "provisioning_template": "t",
        **settings,
    }
    config = device_config(folder, **fields)
    return CertificateRotation(config, transport, is_idle, now, check_seconds=0.01)


def renewals(rotation: CertificateRotation, transport: MemoryTransport, *messages: bytes) -> int:
    """Whether it is renewed within a few checks."""

    async def main() -> int:
        running = asyncio.ensure_future(rotation.run())
        await transport.until(1, "/shadow/get")
        for message in messages:
            assert rotation.receive(DELTA, message)
        for _ in range(10):
            await asyncio.sleep(0.01)
            if transport.renewed:
                break
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return min(transport.renewed, 1)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "messages", "expected"),
    [
        ({"rotate_days": 9}, [], 1),
        ({"rotate_days": 11}, [], 0),
        ({}, [OLD], 0),
        ({}, [YOUNGER], 1),
        ({}, [b"\xff", b"{}", YOUNGER], 1),
        ({"rotate_days": 9, "provisioning_template": ""}, [YOUNGER], 0),
        ({"rotate_days": 9, "certificate": ""}, [YOUNGER], 0),
    ],
)
def test_a_certificate_is_renewed_by_age_or_when_the_shadow_asks(
    tmp_path: Path, settings: dict, messages: list[bytes], expected: int
) -> None:
    transport = MemoryTransport()
    assert renewals(rotation(tmp_path, transport, **settings), transport, *messages) == expected


def test_it_waits_until_the_device_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_rotation, "IDLE_SECONDS", 0.001)
    transport, asked = MemoryTransport(), iter([False, False, True, *[True] * 100])
    seen: list[bool] = []

    def is_idle() -> bool:
        seen.append(next(asked))
        return seen[-1]

    assert renewals(rotation(tmp_path, transport, is_idle, rotate_days=9), transport) == 1
    assert seen[:3] == [False, False, True]


def test_a_renewal_that_fails_is_tried_at_the_next_check(tmp_path: Path) -> None:
    class Refusing(MemoryTransport):
        refused = 0

        async def renew(self) -> None:
            if self.refused < 2:
                self.refused += 1
                raise TransportError("the hook says no")
            await super().renew()

    transport = Refusing()
    assert renewals(rotation(tmp_path, transport, rotate_days=9), transport) == 1
    assert transport.refused == 2


def test_a_flood_of_shadow_messages_is_dropped_and_other_topics_are_left(tmp_path: Path) -> None:
    async def main() -> None:
        found = rotation(tmp_path, MemoryTransport())
        assert all(found.receive(ACCEPTED, b"{}") for _ in range(100))
        assert not found.receive("fl/f/d0/command", b"{}")

    asyncio.run(main())


def test_a_document_and_a_delta_say_the_same() -> None:
    assert parse_shadow(YOUNGER).certificate_after == 9e9
    assert parse_shadow(OLD).certificate_after == 1.0
    assert parse_shadow(b'{"state": {"other": 1}}').certificate_after is None
    with pytest.raises(ProtocolError):
        parse_shadow(b'{"state": {"certificate_after": "soon"}}')


def test_a_clock_a_year_ahead_renews_once_and_not_every_hour(tmp_path: Path) -> None:
    """The new certificate has AWS's date, a year before the device's."""
    year, transport = 366 * 86_400, MemoryTransport()
    found = rotation(tmp_path, transport, now=lambda: time.time() + year)
    assert renewals(found, transport) == 1
    os.utime(tmp_path / "certificate.pem", (time.time() + year,) * 2)  # what renewing does
    transport.renewed = 0
    assert renewals(found, transport) == 0
    behind = rotation(tmp_path, transport)
    assert renewals(behind, transport) == 0, "set right again, its age is the certificate's"


def test_a_request_from_the_future_is_followed_once(tmp_path: Path) -> None:
    transport = MemoryTransport()
    found = rotation(tmp_path, transport)
    assert renewals(found, transport, YOUNGER) == 1
    transport.renewed = 0
    assert renewals(found, transport, YOUNGER) == 0


def test_a_damaged_certificate_does_not_end_the_agent(tmp_path: Path) -> None:
    transport = MemoryTransport()
    found = rotation(tmp_path, transport)
    good = (tmp_path / "certificate.pem").read_bytes()
    (tmp_path / "certificate.pem").write_bytes(b"")

    async def main() -> None:
        running = asyncio.ensure_future(found.run())
        await asyncio.sleep(0.03)
        assert not running.done()
        (tmp_path / "certificate.pem").write_bytes(good)
        found.receive(DELTA, YOUNGER)
        while not transport.renewed:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
