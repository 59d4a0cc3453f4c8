"""Devices enrol themselves by claim, renew their certificates, and nobody else's."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from support.journeys import claim_for, connections_that_end, enrolled_by_claim, renewed

from edge.config import DeviceConfig
from edge.transports import TransportError
from edge.transports.mqtt import MqttTransport
from edge.transports.provisioning import enrol
from fl_runtime.run.aws import client
from pipelines.devices import certificates
from pipelines.local.cloud import LocalCloud


def test_a_new_device_gets_a_certificate_of_its_own(reached: LocalCloud, tmp_path: Path) -> None:
    config = enrolled_by_claim(reached, tmp_path, "press-1")
    thing = client("iot").describe_thing(thingName="press-1")
    assert (thing["thingTypeName"], thing["attributes"]["fleet"]) == (
        reached.deployment.thing_type,
        "plant",
    )
    assert [
        g["groupName"]
        for g in client("iot").list_thing_groups_for_thing(thingName="press-1")["thingGroups"]
    ] == [reached.deployment.thing_group]
    assert stat.S_IMODE(Path(config.private_key).stat().st_mode) == 0o600
    before, after, heard = renewed(reached, config)
    assert before != after
    # The old certificate is taken away once the device has been heard of with the new one.
    gone = certificates.retire(client("iot"), iter([("press-1", heard)]))
    assert [item.device for item in gone] == ["press-1"]
    assert client("iot").list_thing_principals(thingName="press-1")["principals"] == [
        f"arn:aws:iot:us-east-1:000000000000:cert/{heard}"
    ]
    assert certificates.retire(client("iot"), iter([("press-1", heard)])) == []


def test_a_claim_works_once_and_for_its_device_only(reached: LocalCloud, tmp_path: Path) -> None:
    claim = claim_for(reached, tmp_path, "press-2")
    other = claim_for(reached, tmp_path, "press-3")
    claim.token = other.token
    with pytest.raises(TransportError, match="refused a certificate for press-2"):
        asyncio.run(enrol(claim))
    assert not (tmp_path / "press-2" / "device.json").exists()
    asyncio.run(enrol(other))
    with pytest.raises(TransportError, match="refused a certificate for press-3"):
        asyncio.run(enrol(other))
    other.device = "press-9"
    with pytest.raises(TransportError, match="refused"):
        asyncio.run(enrol(other))


def test_an_enrolment_ends_after_its_connection(
    reached: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """awscrt reads freed memory when a message arrives for a client that was forgotten while it was
    connected.
    """
    ended = connections_that_end(monkeypatch)
    enrolled_by_claim(reached, tmp_path, "press-5")
    assert len(ended) == 1


def test_the_claim_certificate_is_good_for_nothing_else(
    reached: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens one new device has it: it must not speak as a device, listen to one, or take
    one's name.
    """
    monkeypatch.setattr("edge.transports.mqtt_connection.CONNECT_SECONDS", 3.0)
    claim = claim_for(reached, tmp_path, "press-4")

    def as_device(name: str) -> DeviceConfig:
        return DeviceConfig(
            fleet="plant",
            device=name,
            endpoint=claim.endpoint,
            port=claim.port,
            certificate=claim.certificate,
            private_key=claim.private_key,
            ca=claim.ca,
            home=str(tmp_path),
        )

    async def attempt(name: str) -> None:
        transport = MqttTransport(as_device(name), will=("fl/plant/press-1/heartbeat", b"{}"))
        try:
            await transport.connect(["fl/plant/press-1/command"], lambda *_: None)
        finally:
            await transport.close()

    with pytest.raises(TransportError, match="No connection"):
        asyncio.run(attempt("press-1"))
    with pytest.raises(TransportError):
        asyncio.run(attempt("claim-press-4"))
