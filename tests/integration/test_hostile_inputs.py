"""10,000 hostile inputs: none is accepted, none crashes anything, and memory stays bounded."""

from __future__ import annotations

import random
import tracemalloc

import msgspec
import numpy as np
import pytest
from fakes.clock import Clock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.phases import LAYOUT, PHASE, phase_request
from hypothesis import given
from hypothesis import strategies as st
from support.hostile import (
    APP,
    MODEL,
    broken_update,
    corpus,
    good_command,
    good_heartbeat,
    good_reply,
    good_update,
)

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, Heartbeat, ObjectRef, decode, decode_order
from edge.protocol.names import check_name, topic
from edge.protocol.records import Records, decode_records, digest, encode_records, encode_skeleton
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.devices import decode_row
from fl_runtime.run.eligibility import eligible
from fl_runtime.run.keys import arrays_key, update_key
from fl_runtime.run.messages import DeviceResult, Folded, Target, array_specs
from fl_runtime.run.ports import StoredReply
from fl_runtime.run.spec import RunSpec

COUNTS = [3_000, pytest.param(10_000, marks=pytest.mark.proof)]
MEMORY = 64 * 2**20
"""Bytes that all of them together may take at once, beside what the test itself holds."""
BLOB = encode_records(Records(arrays={"arrays": MODEL}))
SPEC = RunSpec(run="run-1", fleet="f", app=APP, app_name="x", num_rounds=1, min_devices=1)


class Rows(MemoryFleet):
    """Replies as they lie in the table; commands go nowhere."""

    def send(self, *_: object) -> None:
        return


def judged(
    replies: dict[str, bytes], updates: dict[str, bytes], *, norm_limit: float = 100.0
) -> tuple[dict[str, DeviceResult], Records | None]:
    """What a cohort makes of replies and uploads, by device."""
    objects, clock = MemoryObjects(), Clock()
    objects.data[arrays_key("run-1", digest(BLOB))] = BLOB
    rows = Rows(objects, {})
    request = phase_request(
        *replies,
        cohort="c0",
        app=APP,
        targets=[Target(device, index, message_of(device)) for index, device in enumerate(replies)],
        content=encode_skeleton(Records()),
        arrays=ObjectRef(digest(BLOB), len(BLOB)),
        specs=array_specs(MODEL),
        size_limit=100_000,
        norm_limit=norm_limit,
        layout=LAYOUT,
    )
    for device, body in replies.items():
        rows.rows.setdefault(f"run-1#{PHASE}#c0", {})[device] = StoredReply(
            "f", device, body.decode("utf-8", "replace")
        )
    for device, blob in updates.items():
        objects.data[update_key("run-1", PHASE, device)] = blob
    events = list(CohortRunner(rows, rows, objects, clock=clock, sleep=clock.sleep).run(request))
    results = {item.device: item for item in events if isinstance(item, DeviceResult)}
    assert set(results) == set(replies), "each device gets one result"
    means = [decode_records(item.records) for item in events if isinstance(item, Folded)]
    return results, means[0] if means else None


def message_of(device: str) -> str:
    return f"m-{device.removeprefix('d')}"


@pytest.mark.parametrize("count", COUNTS)
def test_thousands_of_hostile_inputs(count: int) -> None:
    inputs: dict[str, list] = {}
    for number, (kind, item) in enumerate(corpus(count)):
        inputs.setdefault(kind, []).append((number, item))
    assert sum(map(len, inputs.values())) == count
    tracemalloc.start()
    try:
        rows = [
            {
                "fleet": {"S": "f"},
                "device": {"S": f"d{number}"},
                "body": {"S": body.decode("utf-8", "replace")},
                "last_seen": {"N": "99000"},
            }
            for number, body in inputs["heartbeat"]
        ]
        assert eligible(map(decode_row, rows), SPEC, 100.0, 90.0) == {}
        replies = {f"d{number}": body for number, body in inputs["reply"]}
        results, mean = judged(replies, dict.fromkeys(replies, b"x" * 100))
        accepted = [replies[device] for device, result in results.items() if result.status == "ok"]
        assert (accepted, mean) == ([], None)
        uploads = {f"d{number}": blob for number, blob in inputs["update"]}
        announced = {
            device: msgspec.json.encode(
                good_reply(message_of(device), update=ObjectRef(digest(blob), len(blob)))
            )
            for device, blob in uploads.items()
        }
        results, mean = judged(announced, uploads)
        accepted = [uploads[device] for device, result in results.items() if result.status == "ok"]
        assert (accepted, mean) == ([], None)
        for _, payload in inputs["command"]:
            with pytest.raises(ProtocolError):
                decode_order(payload)
        for _, name in inputs["name"]:
            with pytest.raises(ProtocolError):
                check_name("device", name)
            with pytest.raises(ProtocolError):
                topic("f", name, "reply")
            with pytest.raises(ProtocolError):
                update_key("run-1", PHASE, name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


def test_what_the_corpus_is_made_from_is_accepted() -> None:
    """Otherwise the test above would pass for the wrong reason."""
    assert decode(msgspec.json.encode(good_heartbeat()), Heartbeat) == good_heartbeat()
    assert isinstance(decode_order(msgspec.json.encode(good_command())), Command)
    blob = good_update()
    good = msgspec.json.encode(good_reply("m-1", update=ObjectRef(digest(blob), len(blob))))
    results, mean = judged({"d1": good}, {"d1": blob})
    assert results["d1"].status == "ok", results
    assert mean is not None
    np.testing.assert_array_equal(mean.arrays["arrays"]["w"], np.ones(16, np.float32))


def test_honest_updates_count_among_hostile_ones() -> None:
    dice = random.Random(7)
    uploads = {
        f"d{n}": (good_update(n) if n % 10 == 0 else broken_update(dice)) for n in range(1, 60)
    }
    announced = {
        d: msgspec.json.encode(good_reply(message_of(d), update=ObjectRef(digest(blob), len(blob))))
        for d, blob in uploads.items()
    }
    results, mean = judged(announced, uploads, norm_limit=1e4)
    assert sorted(device for device, result in results.items() if result.status == "ok") == [
        "d10",
        "d20",
        "d30",
        "d40",
        "d50",
    ]
    assert mean is not None
    np.testing.assert_allclose(mean.arrays["arrays"]["w"], 30.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["v", "run", "state", "apps", "update", "order", "x"])
            | st.text(max_size=5),
            inner,
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_refused_or_of_the_form(value: object) -> None:
    data = msgspec.json.encode(value)
    for kind in (Heartbeat, Command):
        try:
            found = decode(data, kind)
        except ProtocolError:
            continue
        assert decode(msgspec.json.encode(found), kind) == found
    results, mean = judged({"d1": data}, {})
    assert results["d1"].status == "error"
    assert mean is None
