"""Direct enrolment writes a device's files once, and keeps its key where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.addresses import Addresses
from edge.config import DeviceConfig
from edge.identity.credentials import Credentials
from edge.protocol.errors import ProtocolError
from pipelines.devices.provisioning import DeviceEndpoint, enrol, object_addresses


class Iot:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.request = ""
        self.left: list[str] = []

    def list_thing_principals(self, thingName: str) -> dict[str, list[str]]:
        return {"principals": self.left}

    def create_certificate_from_csr(
        self, certificateSigningRequest: str, setAsActive: bool
    ) -> dict[str, str]:
        self.request = certificateSigningRequest
        return {
            "certificateArn": "arn:aws:iot:r:a:cert/c1",
            "certificateId": "c1" * 32,
            "certificatePem": "pem",
        }

    def __getattr__(self, name: str) -> Any:
        return lambda **_: self.calls.append(name)


ENDPOINT = DeviceEndpoint(host="broker", port=8883, ca=b"ca", trust=b"{}")


def device_config(home: Path) -> DeviceConfig:
    return DeviceConfig(
        fleet="plant",
        device="press-1",
        endpoint="broker",
        port=8883,
        certificate=str(Credentials(home / "credentials").certificate),
        private_key=str(Credentials(home / "credentials").private_key),
        ca=str(home / "ca.pem"),
        home=str(home),
    )


def test_a_device_is_enrolled_once(tmp_path: Path) -> None:
    home = tmp_path / "device"
    iot, config = Iot(), device_config(home)
    for _ in range(2):
        enrol(iot, "policy", ENDPOINT, config)
    assert iot.calls == ["create_thing", "attach_policy", "attach_thing_principal"]
    assert "CERTIFICATE REQUEST" in iot.request
    assert "PRIVATE" not in iot.request
    assert Path(config.certificate).read_text() == "pem"
    assert (home / "ca.pem").read_bytes() == b"ca"


def test_what_a_killed_enrolment_left_is_removed(tmp_path: Path) -> None:
    iot = Iot()
    iot.left = ["arn:aws:iot:r:a:cert/lost"]
    enrol(iot, "policy", ENDPOINT, device_config(tmp_path / "device"))
    assert iot.calls == [
        "create_thing",
        "update_certificate",
        "detach_thing_principal",
        "attach_policy",
        "attach_thing_principal",
    ]


def test_devices_may_ask_for_the_deployments_objects_only() -> None:
    allowed = Addresses(object_addresses("b", "eu-west-1"))
    for url in ("https://b.s3.amazonaws.com/x", "https://s3.eu-west-1.amazonaws.com/b/x"):
        allowed.check(url)
    with pytest.raises(ProtocolError):
        allowed.check("https://c.s3.amazonaws.com/x")
