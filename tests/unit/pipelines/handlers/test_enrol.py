"""The pre-provisioning hook lets in who is expected and who renews, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from fl_runtime.run.blocking import Block
from pipelines.devices.tokens import token_digest
from pipelines.handlers.enrol import EnrolmentRefused, EnrolRequest, check, handler


class Iot:
    """Things as the hook sees them."""

    class exceptions:  # as botocore names it
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, things: dict[str, tuple[dict[str, str], list[str]]]) -> None:
        self.things = things

    def describe_thing(self, thingName: str) -> dict[str, Any]:
        if thingName not in self.things:
            raise self.exceptions.ResourceNotFoundException
        return {"attributes": self.things[thingName][0]}

    def list_thing_principals(self, thingName: str) -> dict[str, Any]:
        return {
            "principals": [f"arn:aws:iot:r:a:cert/{name}" for name in self.things[thingName][1]]
        }


EXPECTED = {
    "fleet": "f",
    "enrolment_token_sha256": token_digest("secret"),
    "enrolment_token_expires": "100",
}


NOW = 99.0
THINGS = Iot(
    {
        "new": (EXPECTED, []),
        "old": (EXPECTED, ["c1"]),
        "two": (EXPECTED, ["c1", "c2"]),
        "shut-out": (EXPECTED, []),
        "old-claim": ({k: v for k, v in EXPECTED.items() if "expires" not in k}, []),
        "odd": ({**EXPECTED, "enrolment_token_expires": "soon"}, []),
        "bare": ({"fleet": "f"}, []),
    }
)

BLOCKS = {"shut-out": Block(reason="it was stolen", by="ops", at=1.0)}


class Blocked:
    """The block list as the hook asks it."""

    def find(self, device: str) -> Block | None:
        return BLOCKS.get(device)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"clientId": 1},
        {"clientId": "claim-x", "claimCertificateId": "c", "parameters": {"SerialNumber": ["new"]}},
        {"clientId": "claim-x", "claimCertificateId": "c", "parameters": "new"},
        {"clientId": "x" * 10_000, "claimCertificateId": "c", "parameters": {}},
    ],
)
def test_whatever_the_hook_is_given_it_answers_no(
    event: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.handlers.enrol.iot", lambda: THINGS)
    monkeypatch.setattr("pipelines.handlers.enrol.block_list", Blocked)
    assert handler(event, None) == {"allowProvisioning": False}


@pytest.mark.parametrize(
    ("client_id", "certificate", "parameters", "reason"),
    [
        (
            "claim-x",
            "claim",
            {"SerialNumber": "unknown", "Fleet": "f", "Token": "secret"},
            "not expected",
        ),
        (
            "claim-x",
            "claim",
            {"SerialNumber": "new", "Fleet": "g", "Token": "secret"},
            "another fleet",
        ),
        ("claim-x", "claim", {"SerialNumber": "new", "Fleet": "f", "Token": "guess"}, "token"),
        ("claim-x", "claim", {"SerialNumber": "new", "Fleet": "f"}, "token"),
        ("claim-x", "claim", {"SerialNumber": "bare", "Fleet": "f", "Token": ""}, "token"),
        (
            "claim-x",
            "claim",
            {"SerialNumber": "old", "Fleet": "f", "Token": "secret"},
            "certificate already",
        ),
        ("old", "c9", {"SerialNumber": "old", "Fleet": "f"}, "certificate already"),
        ("new", "c1", {"SerialNumber": "old", "Fleet": "f"}, "another name"),
        ("two", "c1", {"SerialNumber": "two", "Fleet": "f"}, "2 certificates"),
        (
            "claim-x",
            "claim",
            {"SerialNumber": "shut-out", "Fleet": "f", "Token": "secret"},
            "is blocked by ops: it was stolen",
        ),
        ("claim-x", "claim", {"SerialNumber": "../old", "Fleet": "f"}, "device"),
        ("claim-x", "claim", {}, "device"),
    ],
)
def test_the_hook_refuses(client_id: str, certificate: str, parameters: dict, reason: str) -> None:
    with pytest.raises(EnrolmentRefused, match=reason):
        check(
            EnrolRequest(
                client_id=client_id, claim_certificate_id=certificate, parameters=parameters
            ),
            THINGS,
            BLOCKS.get,
            NOW,
        )


def test_the_hook_lets_in_who_is_expected_and_who_renews() -> None:
    assert (
        check(
            EnrolRequest(
                client_id="claim-x",
                claim_certificate_id="claim",
                parameters={"SerialNumber": "new", "Fleet": "f", "Token": "secret"},
            ),
            THINGS,
            BLOCKS.get,
            NOW,
        )
        == "new"
    )
    assert (
        check(
            EnrolRequest(
                client_id="old",
                claim_certificate_id="c1",
                parameters={"SerialNumber": "old", "Fleet": "f"},
            ),
            THINGS,
            BLOCKS.get,
            NOW,
        )
        == "old"
    )


@pytest.mark.parametrize(
    ("device", "now", "reason"),
    [
        ("new", 100.0, "has expired: `mledgeops devices expect` makes a new one"),
        ("old-claim", 1.0, "has no expiry, so version 0.4 or earlier made it"),
        ("odd", 1.0, "has no expiry"),
    ],
)
def test_a_token_is_good_for_a_time_only(device: str, now: float, reason: str) -> None:
    parameters = {"SerialNumber": device, "Fleet": "f", "Token": "secret"}
    request = EnrolRequest(client_id="claim-x", claim_certificate_id="claim", parameters=parameters)
    with pytest.raises(EnrolmentRefused, match=reason):
        check(request, THINGS, BLOCKS.get, now)


def test_a_certificate_is_renewed_after_the_token_has_expired() -> None:
    request = EnrolRequest(
        client_id="old",
        claim_certificate_id="c1",
        parameters={"SerialNumber": "old", "Fleet": "f"},
    )
    assert check(request, THINGS, BLOCKS.get, 1e9) == "old"
