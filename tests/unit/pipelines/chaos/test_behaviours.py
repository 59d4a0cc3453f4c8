"""The hostile device: which of its updates, replies and files are wrong, and how."""

from __future__ import annotations

import numpy as np
import pytest

from edge.protocol.messages import Command, Reply, unseal
from edge.protocol.records import decode_records, digest
from pipelines.chaos.app.steady.model import SIZE, examples, initial, loss, target, train
from pipelines.chaos.devices import hostile
from pipelines.chaos.devices.behaviours import (
    BEHAVIOURS,
    CLAIMS,
    COPIES,
    FILES,
    FUZZED_FILE,
    HARMLESS,
    HONEST,
    METRICS,
    OWN_KEYS,
    REPLIES,
    SPOILED,
    payloads_of,
    reply_of,
    update_of,
)
from pipelines.chaos.devices.fuzzed import is_update

WEIGHTS = train(initial()["w"], 0)
REPLY = Reply(run="run-1", phase="00001-train-0001-00000000", message_id="m", status="ok")


def command() -> Command:
    return Command(
        device="d0",
        issued=1,
        run="run-1",
        phase=REPLY.phase,
        server_round=1,
        kind="train",
        message_id="m",
        reply_key="run-1/00001-train-0001-00000000/c0000",
        app="a" * 64,
        seconds=3.0,
        flower_run_id=1,
        node_id=1,
        upload_url="http://127.0.0.1:1",
    )


def test_an_honest_update_is_announced_as_it_is_uploaded() -> None:
    update = update_of(HONEST, WEIGHTS, 4)
    assert [digest(blob) for blob in update.uploads] == [update.ref.digest]
    assert update.ref.size == len(update.uploads[0])


@pytest.mark.parametrize("behaviour", [*SPOILED, *METRICS, *FILES, "wrong-name", OWN_KEYS])
def test_a_spoiled_update_differs_and_is_announced_as_it_is(behaviour: str) -> None:
    honest, update = update_of(HONEST, WEIGHTS, 4), update_of(behaviour, WEIGHTS, 4)
    assert update.uploads != honest.uploads
    assert digest(update.uploads[0]) == update.ref.digest


@pytest.mark.parametrize("behaviour", CLAIMS)
def test_a_false_claim_is_not_what_lies_in_the_bucket(behaviour: str) -> None:
    update = update_of(behaviour, WEIGHTS, 4)
    stored = update.uploads[-1] if update.uploads else b""
    assert (digest(stored), len(stored)) != (update.ref.digest, update.ref.size)


@pytest.mark.parametrize("behaviour", sorted(set(REPLIES) - {"silent"}))
def test_a_false_reply_speaks_of_something_else(behaviour: str) -> None:
    assert reply_of(behaviour, REPLY) != REPLY


def test_harmless_behaviours_change_no_reply_but_may_repeat_it() -> None:
    for behaviour in HARMLESS:
        assert reply_of(behaviour, REPLY) == REPLY
        payloads = payloads_of(behaviour, command(), REPLY, [])
        assert len(payloads) >= COPIES.get(behaviour, 1)


def test_a_replay_repeats_what_was_published_before() -> None:
    earlier: list[bytes] = []
    payloads_of(HONEST, command(), REPLY, earlier)
    payloads = payloads_of("replay", command(), REPLY, earlier)
    assert len(earlier) == 2
    assert set(earlier) <= set(payloads)


def test_sybils_with_keys_of_their_own_have_three_layouts() -> None:
    files = [update_of(OWN_KEYS, WEIGHTS, partition).uploads[0] for partition in (4, 6, 7)]
    names = [decode_records(file).metrics["metrics"].keys() for file in files]
    assert len({frozenset(keys) for keys in names}) == 3


def test_fuzzed_files_differ_by_message_and_are_no_updates_that_could_count() -> None:
    honest = update_of(HONEST, WEIGHTS, 4).uploads[0]
    files = {update_of(FUZZED_FILE, WEIGHTS, 4, f"m{number}").uploads[0] for number in range(20)}
    assert len(files) > 10
    assert not any(is_update(file, honest) for file in files)
    again = update_of(FUZZED_FILE, WEIGHTS, 4, "m1")
    assert again == update_of(FUZZED_FILE, WEIGHTS, 4, "m1"), "a simulated seed repeats"


def test_fuzzed_replies_come_before_the_honest_one_and_speak_of_its_command() -> None:
    payloads = payloads_of("fuzzed-reply", command(), REPLY, [])
    assert len(payloads) > 10
    assert unseal(payloads[-1], Reply) == REPLY
    assert any(b"run-1" in payload for payload in payloads[:-1])


def test_every_behaviour_is_known_once() -> None:
    assert len(BEHAVIOURS) == len(set(BEHAVIOURS))
    assert HARMLESS - {HONEST} < set(BEHAVIOURS)
    assert hostile.HostileDevice


def test_training_moves_half_way_to_the_devices_own_target() -> None:
    start = initial()["w"]
    assert start.shape == (SIZE,)
    assert loss(train(start, 2), 2) == pytest.approx(loss(start, 2) / 4, rel=1e-4)
    assert not np.array_equal(target(1), target(2))
    assert examples(3) == 13
