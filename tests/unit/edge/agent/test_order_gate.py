"""What a device accepts on its command topic, and whom it tells of a refusal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes.devices import a_command
from fakes.keys import Key, claim_of, sealed, trust

from edge.agent.freshness import Freshness
from edge.agent.order_gate import GrantedClaim, GrantedCommand, OrderGate, refusal
from edge.identity.trust import Trust
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, Reply, unseal


@pytest.fixture
def gate(tmp_path: Path) -> OrderGate:
    """The gate of the device d0 in the fleet f."""
    trust(tmp_path / "trust.json")
    keys = Trust.of(tmp_path / "trust.json")
    return OrderGate("f", "d0", keys, Freshness(tmp_path / "seen.json"))


def claimed(gate: OrderGate, command: Command, spoken_of: Command) -> GrantedCommand:
    """Open a claim under the grant of ``spoken_of``, and the command that is found behind it."""
    claim, _ = claim_of(spoken_of, "url")
    opened = gate.open(sealed(spoken_of, claim))
    assert isinstance(opened, GrantedClaim)
    return gate.claimed(opened, msgspec.json.encode(command))


def test_a_claim_leads_to_the_granted_command_only(gate: OrderGate) -> None:
    command = a_command()
    assert claimed(gate, command, command).command == command
    for changes in (
        {"device": "d1"},
        {"message_id": "other"},
        {"issued": command.issued + 1},
        {"run": "run-9"},
        {"kind": "evaluate"},
        {"app": "e" * 64},
    ):
        with pytest.raises(ProtocolError) as refused:
            claimed(gate, msgspec.structs.replace(command, **changes), command)
        assert refused.value.code == "foreign", changes


@pytest.mark.parametrize("changes", [{"fleet": "g"}, {"device": "d1"}])
def test_an_order_for_another_fleet_or_device_is_foreign(
    gate: OrderGate, changes: dict[str, str]
) -> None:
    command = a_command()
    if "device" in changes:
        payload = sealed(msgspec.structs.replace(command, device="d1"))
    else:
        payload = sealed(command, fleet="g")
    with pytest.raises(ProtocolError) as refused:
        gate.open(payload)
    assert refused.value.code == "foreign"
    assert isinstance(gate.open(sealed(command)), GrantedCommand)


def test_an_order_is_admitted_once(gate: OrderGate) -> None:
    command = a_command()
    gate.admit(command)
    with pytest.raises(ProtocolError) as refused:
        gate.admit(command)
    assert refused.value.code == "outdated"


def test_a_refusal_answers_the_message_that_was_refused(gate: OrderGate) -> None:
    command = a_command()
    payload = sealed(command, key=Key())
    with pytest.raises(ProtocolError) as refused:
        gate.open(payload)
    answer = refusal(payload, refused.value)
    assert answer is not None
    reply = unseal(answer, Reply)
    assert (reply.message_id, reply.status, reply.code) == (command.message_id, "error", "unsigned")
    assert refusal(payload, ProtocolError("foreign", "It is for another device.")) is None
    claim, _ = claim_of(command, "url")
    assert refusal(sealed(command, claim), refused.value) is None, "a claim names no reply key"
