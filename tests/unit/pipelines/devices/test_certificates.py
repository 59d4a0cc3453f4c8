"""Operators expect devices, rotate their certificates and retire old ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.protocol.errors import ProtocolError
from pipelines.deployment import Deployment
from pipelines.devices import certificates
from pipelines.devices.provisioning import DeviceEndpoint
from pipelines.devices.tokens import token_digest, token_matches

D = Deployment(account="000000000000", region="us-east-1")
ENDPOINT = DeviceEndpoint(host="broker", port=8883, ca=b"ca", trust=b"{}")


class _Missing(Exception):
    pass


class _Exists(Exception):
    pass


class Iot:
    """Things with attributes and certificates, each certificate with its date."""

    exceptions = SimpleNamespace(
        ResourceNotFoundException=_Missing, ResourceAlreadyExistsException=_Exists
    )

    def __init__(self) -> None:
        self.things: dict[str, dict[str, str]] = {}
        self.groups: dict[str, set[str]] = {}
        self.certificates: dict[str, dict[str, int]] = {}
        self.inactive: list[str] = []
        self.policies: list[str] = []

    def create_thing(self, thingName: str, thingTypeName: str, attributePayload: Any) -> None:
        if thingName in self.things:
            raise _Exists
        self.things[thingName] = dict(attributePayload["attributes"])

    def add_thing_to_thing_group(self, thingGroupName: str, thingName: str) -> None:
        assert thingName in self.things
        self.groups.setdefault(thingGroupName, set()).add(thingName)

    def update_thing(self, thingName: str, attributePayload: Any) -> None:
        self.things[thingName].update(attributePayload["attributes"])

    def list_thing_principals(self, thingName: str) -> dict[str, list[str]]:
        if thingName not in self.things:
            raise _Missing
        held = self.certificates.get(thingName, {})
        return {"principals": [f"arn:aws:iot:r:a:cert/{name}" for name in held]}

    def describe_certificate(self, certificateId: str) -> dict[str, Any]:
        dates = {name: at for held in self.certificates.values() for name, at in held.items()}
        return {"certificateDescription": {"creationDate": dates[certificateId]}}

    def create_certificate_from_csr(self, **_: Any) -> dict[str, str]:
        return {"certificateArn": "arn:claim", "certificatePem": "pem"}

    def attach_policy(self, policyName: str, target: str) -> None:
        self.policies.append(policyName)

    def update_certificate(self, certificateId: str, newStatus: str) -> None:
        self.inactive.append(certificateId)

    def detach_thing_principal(self, thingName: str, principal: str) -> None:
        del self.certificates[thingName][principal.rsplit("/", 1)[1]]


def expected(iot: Iot, out: Path, *devices: str) -> list[Path]:
    return certificates.expect(
        D, iot, ENDPOINT, "plant", list(devices), out, "/var/lib/device", expires_at=9.0
    )


def test_an_expected_device_gets_a_thing_and_a_private_claim_file(tmp_path: Path) -> None:
    iot = Iot()
    (file,) = expected(iot, tmp_path, "press-1")
    claim = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert (claim["device"], claim["fleet"], claim["endpoint"]) == ("press-1", "plant", "broker")
    digest = iot.things["press-1"]["enrolment_token_sha256"]
    assert token_matches(claim["token"], digest)
    assert claim["token"] not in str(iot.things), "the thing keeps the digest, not the token"
    assert iot.policies == [D.claim_policy]
    assert iot.groups == {D.thing_group: {"press-1"}}, "enrolment changes no groups"


def test_what_a_killed_command_left_of_claim_files_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".press-1.json.x1.part").write_text("a token")
    expected(Iot(), tmp_path, "press-1")
    assert not list(tmp_path.glob(".*.part"))


def test_a_device_that_is_expected_again_gets_a_new_token(tmp_path: Path) -> None:
    iot = Iot()
    (file,) = expected(iot, tmp_path, "press-1")
    old = json.loads(file.read_text())["token"]
    expected(iot, tmp_path, "press-1")
    assert not token_matches(old, iot.things["press-1"]["enrolment_token_sha256"])
    assert iot.policies == [D.claim_policy], "one claim certificate serves a folder"


def test_an_enrolled_device_and_an_illegal_name_are_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    iot = Iot()
    iot.things["press-1"], iot.certificates["press-1"] = {}, {"c1": 1}
    with pytest.raises(certificates.EnrolledAlready, match="press-1 is enrolled"):
        expected(iot, tmp_path / "out", "press-1")
    with pytest.raises(ProtocolError):
        expected(iot, tmp_path / "out", "a/b")
    assert not (tmp_path / "out").exists()


def test_older_certificates_than_the_one_in_use_are_retired() -> None:
    iot = Iot()
    iot.things = {"a": {}, "b": {}, "c": {}}
    iot.certificates = {"a": {"old": 1, "new": 2}, "b": {"only": 1}, "c": {"used": 1, "next": 2}}
    rows = iter([("a", "new"), ("b", "only"), ("c", "used"), ("a", "unknown")])
    retired = certificates.retire(iot, rows)
    assert [(r.device, r.certificate) for r in retired] == [("a", "old")]
    assert iot.inactive == ["old"]
    assert iot.certificates["c"] == {"used": 1, "next": 2}, "a newer one is not in use yet"


def test_rotation_is_asked_for_by_the_shadow() -> None:
    sent: dict[str, Any] = {}
    shadows = SimpleNamespace(
        update_thing_shadow=lambda thingName, payload: sent.update({thingName: json.loads(payload)})
    )
    certificates.rotate(shadows, ["a"], 12.5)
    assert sent == {"a": {"state": {"desired": {"certificate_after": 12.5}}}}


def test_a_token_matches_its_digest_and_nothing_else() -> None:
    assert token_matches("secret", token_digest("secret"))
    assert not token_matches("guess", token_digest("secret"))
    assert not token_matches("", "")
