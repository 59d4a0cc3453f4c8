"""The commands of one phase."""

from __future__ import annotations

import msgspec
from fakes.clock import Clock
from fakes.objects import MemoryObjects
from fakes.phases import PHASE, phase_request, stored_weights

from edge.protocol.messages import COMMAND_LIMIT, Claim, Command
from edge.protocol.orders import Grant, content_digest, decode_signed, read_unverified
from fl_runtime.cohort.command_sender import CONTENT_LIMIT, CommandSender
from fl_runtime.run.concurrency import Threads
from fl_runtime.run.keys import arrays_key, reply_key, update_key
from fl_runtime.run.messages import OrderKey, Target


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
    sender = CommandSender(sent, stored_weights(), request, Threads(), Clock())
    assert sender.send({target.device: target for target in request.targets}, 3.0) == []
    commands = {device: read_unverified(payload) for device, payload in sent.payloads.items()}
    for device, command in commands.items():
        assert isinstance(command, Command)
        assert command.message_id == f"m-{device}"
        assert command.upload_url == update_key("run-1", PHASE, device)
        assert command.reply_key == reply_key("run-1", PHASE, "c0000")
        assert (command.device, command.seconds) == (device, 3.0)
        assert command.arrays is not None
        assert command.arrays.url == arrays_key("run-1", command.arrays.digest)


def test_a_device_that_cannot_be_reached_fails_alone() -> None:
    sent, request = Sent(), phase_request("away", "b")
    sender = CommandSender(sent, stored_weights(), request, Threads(), Clock())
    failed = sender.send({target.device: target for target in request.targets}, 3.0)
    assert [(result.device, result.code) for result in failed] == [("away", "not-sent")]
    assert list(sent.payloads) == ["b"]


def test_long_content_is_stored_once_for_all() -> None:
    sent, objects = Sent(), stored_weights()
    request = phase_request("a", "b", content="x" * (CONTENT_LIMIT + 1))
    CommandSender(sent, objects, request, Threads(), Clock()).send(
        {t.device: t for t in request.targets}, 3.0
    )
    (key,) = [key for key in objects.puts if "/content/" in key]
    for payload in sent.payloads.values():
        command = read_unverified(payload)
        assert isinstance(command, Command)
        assert command.content == ""
        assert command.content_ref is not None
        assert command.content_ref.url == key


def test_a_long_command_becomes_a_claim_check() -> None:
    class LongUrls(MemoryObjects):
        def url_to_put(self, key: str, seconds: float, limit: int) -> str:
            return key + "?" + "s" * COMMAND_LIMIT

    sent, objects, request = Sent(), LongUrls(), phase_request("a")
    CommandSender(sent, objects, request, Threads(), Clock()).send({"a": request.targets[0]}, 3.0)
    claim = read_unverified(sent.payloads["a"])
    assert isinstance(claim, Claim)
    stored = msgspec.json.decode(objects.get(claim.command.url), type=Command)
    assert stored.message_id == "m-a"


def test_a_command_sent_again_is_issued_later_even_by_a_clock_set_back() -> None:
    sent, request, moments = Sent(), phase_request("a"), iter([100.0, 90.0])
    sender = CommandSender(sent, stored_weights(), request, Threads(), lambda: next(moments))
    issued = []
    for _ in range(2):
        sender.send({"a": request.targets[0]}, 3.0)
        issued.append(read_unverified(sent.payloads["a"]).issued)
    assert issued == [100_000, 100_001]


class LongestUrls(MemoryObjects):
    """Addresses as S3 presigns them for a task's role: a session token takes up to 2,000 bytes."""

    def url_to_get(self, key: str, seconds: float) -> str:
        return self._presigned(key)

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        return self._presigned(key)

    def _presigned(self, key: str) -> str:
        host = f"https://{'p' * 36}-123456789012-ap-southeast-1.s3.amazonaws.com/"
        query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + "A" * 60
        query += "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
        return f"{host}{key}?{query}&X-Amz-Security-Token={'t' * 2000}&X-Amz-Signature={'s' * 64}"


def test_the_longest_order_stays_within_the_transports_limit() -> None:
    name = "n" * 63
    phase = f"99999-{'k' * 20}.{'f' * 41}-9999-00000000"
    grant = Grant(
        run=name,
        phase=phase,
        kind=f"{'k' * 20}.{'f' * 41}",
        fleet=name,
        cohort="c9999",
        app="a" * 64,
        arrays="b" * 64,
        content=content_digest("", ""),
        key="k" * 44,
        expires=2**53,
    )
    request = phase_request(
        run=name,
        fleet=name,
        cohort="c9999",
        phase=phase,
        kind=grant.kind,
        content="x" * (CONTENT_LIMIT + 1),
        run_config="{" + " " * 5000 + "}",
        key=OrderKey(bytes(32), msgspec.json.encode(grant), "s" * 96),
        targets=[Target(name, 2**63 - 1, f"{name}.{phase}.{name}")],
    )
    sent = Sent()
    sender = CommandSender(sent, LongestUrls(), request, Threads(), Clock())
    assert sender.send({name: request.targets[0]}, 604_800.0) == []
    assert len(sent.payloads[name]) <= COMMAND_LIMIT
    assert isinstance(read_unverified(sent.payloads[name]), Claim)
    assert bytes(decode_signed(sent.payloads[name]).grant) == msgspec.json.encode(grant)


def test_an_order_that_is_too_long_even_as_a_claim_fails_its_device() -> None:
    class Endless(MemoryObjects):
        def url_to_get(self, key: str, seconds: float) -> str:
            return key + "?" + "s" * COMMAND_LIMIT

    sent, request = Sent(), phase_request("a", content="x" * (CONTENT_LIMIT + 1))
    sender = CommandSender(sent, Endless(), request, Threads(), Clock())
    (failed,) = sender.send({"a": request.targets[0]}, 3.0)
    assert failed.code == "not-sent"
    assert sent.payloads == {}


class Signed(MemoryObjects):
    """Presigned addresses, each signed anew."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def url_to_get(self, key: str, seconds: float) -> str:
        self.count += 1
        return f"{key}?{self.count}"

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        return self.url_to_get(key, seconds)


def test_a_repeated_command_has_new_addresses() -> None:
    """Those of the first end with the credentials that signed them."""
    sent, request, objects = Sent(), phase_request("a"), Signed()
    objects.data.update(stored_weights().data)
    sender = CommandSender(sent, objects, request, Threads(), Clock())
    seen: list[set[str]] = []
    for _ in range(2):
        sender.send({target.device: target for target in request.targets}, 3.0)
        command = read_unverified(sent.payloads["a"])
        assert isinstance(command, Command)
        assert command.arrays is not None
        seen.append({command.arrays.url, command.upload_url})
    assert seen[0].isdisjoint(seen[1])
