"""The commands of one phase."""

from __future__ import annotations

import msgspec
from fakes.objects import MemoryObjects
from fakes.phases import PHASE, phase_request, stored_weights

from edge.protocol.messages import COMMAND_LIMIT, Claim, Command, decode_order
from fl_runtime.cohort.command_sender import CONTENT_LIMIT, CommandSender
from fl_runtime.run.concurrency import Threads
from fl_runtime.run.keys import arrays_key, reply_key, update_key


class Sent:
    """Commands that keeps what was sent, and cannot reach the device ``away``."""

    def __init__(self) -> None:
        self.payloads: dict[str, bytes] = {}

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        if device == "away":
            raise ConnectionError("unreachable")
        self.payloads[device] = payload


def test_each_device_gets_its_own_upload_url_and_the_shared_weights() -> None:
    sent, request = Sent(), phase_request("a", "b")
    sender = CommandSender(sent, stored_weights(), request, Threads())
    assert sender.send({target.device: target for target in request.targets}, 3.0) == []
    commands = {device: decode_order(payload) for device, payload in sent.payloads.items()}
    for device, command in commands.items():
        assert isinstance(command, Command)
        assert command.message_id == f"m-{device}"
        assert command.upload_url == update_key("run-1", PHASE, device)
        assert command.reply_key == reply_key("run-1", PHASE, "c0000")
        assert (command.seconds, command.signature) == (3.0, "signed")
        assert command.arrays is not None
        assert command.arrays.url == arrays_key("run-1", command.arrays.digest)


def test_a_device_that_cannot_be_reached_fails_alone() -> None:
    sent, request = Sent(), phase_request("away", "b")
    sender = CommandSender(sent, stored_weights(), request, Threads())
    failed = sender.send({target.device: target for target in request.targets}, 3.0)
    assert [(result.device, result.code) for result in failed] == [("away", "not-sent")]
    assert list(sent.payloads) == ["b"]


def test_long_content_is_stored_once_for_all() -> None:
    sent, objects = Sent(), stored_weights()
    request = phase_request("a", "b", content="x" * (CONTENT_LIMIT + 1))
    CommandSender(sent, objects, request, Threads()).send(
        {t.device: t for t in request.targets}, 3.0
    )
    (key,) = [key for key in objects.puts if "/content/" in key]
    for payload in sent.payloads.values():
        command = decode_order(payload)
        assert isinstance(command, Command)
        assert command.content == ""
        assert command.content_ref is not None
        assert command.content_ref.url == key


def test_a_long_command_becomes_a_claim_check() -> None:
    class LongUrls(MemoryObjects):
        def url_to_put(self, key: str, seconds: float) -> str:
            return key + "?" + "s" * COMMAND_LIMIT

    sent, objects, request = Sent(), LongUrls(), phase_request("a")
    CommandSender(sent, objects, request, Threads()).send({"a": request.targets[0]}, 3.0)
    claim = decode_order(sent.payloads["a"])
    assert isinstance(claim, Claim)
    stored = msgspec.json.decode(objects.get(claim.command.url), type=Command)
    assert stored.message_id == "m-a"
