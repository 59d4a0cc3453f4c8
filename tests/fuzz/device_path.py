"""From a device's reply to the fold: one device of three sends what the fuzzer makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np
from fakes.clock import Clock
from fakes.objects import MemoryObjects
from fakes.phases import PHASE, phase_request, stored_weights, update

from edge.protocol.messages import ObjectRef, Reply
from edge.protocol.records import decode_records, digest, encode_records
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.concurrency import Answer, Item, Threads
from fl_runtime.run.keys import update_key
from fl_runtime.run.messages import DeviceResult, Folded, PhaseEvent, layout_of
from fl_runtime.run.ports import StoredReply
from fl_runtime.run.records import PhaseStats, RoundRecord, summarize

LAYOUT = layout_of({"num-examples": 10, "loss": 1.0})
DEVICE_PATHS: dict[str, dict[str, object]] = {
    "fold": {"norm_limit": 100.0, "layout": LAYOUT},
    "held": {"norm_factor": 10.0, "layout": LAYOUT},
    "evaluate": {"kind": "evaluate"},
    "passed": {"fold": False, "checked": False, "specs": None},
}
"""Phases by name, each with what sets it apart."""
HONEST = {"a": 1.0, "b": 3.0}
EVIL = "evil"
SEPARATOR = b"\n\n"


def file_of(data: bytes) -> bytes:
    """A weights file: header and data, a blank line between them. Its length is always right, so
    that the fuzzer reaches what lies behind it.
    """
    header, _, rest = data.partition(SEPARATOR)
    return len(header).to_bytes(8, "little") + header + rest


def input_of(body: bytes, blob: bytes) -> bytes:
    """The input of a reply's body and a weights file: what :func:`device_to_fold` takes apart."""
    length = int.from_bytes(blob[:8], "little")
    return SEPARATOR.join((body, blob[8 : 8 + length], blob[8 + length :]))


def device_to_fold(phase: dict[str, object]) -> Callable[[bytes], None]:
    """A target: reply and update of one device in a phase with two honest ones.

    ``@digest`` and ``@size`` in the reply stand for those of the update.
    """

    def target(data: bytes) -> None:
        body, _, rest = data.partition(SEPARATOR)
        blob = file_of(rest)
        body = body.replace(b"@digest", digest(blob).encode())
        body = body.replace(b"@size", str(len(blob)).encode())
        _check(_events(phase, body.decode("utf-8", "surrogateescape"), blob), phase)

    return target


def _events(phase: dict[str, object], body: str, blob: bytes) -> list[PhaseEvent]:
    objects, clock = stored_weights(), Clock()
    rows = [StoredReply("f", EVIL, body)]
    for device, value in HONEST.items():
        honest = encode_records(update(value, loss=value))
        _put(objects, device, honest)
        ref = ObjectRef(digest(honest), len(honest))
        reply = Reply(run="run-1", phase=PHASE, message_id=f"m-{device}", status="ok", update=ref)
        rows.append(StoredReply("f", device, msgspec.json.encode(reply).decode()))
    _put(objects, EVIL, blob)
    cloud = _Cloud(rows)
    request = phase_request(*HONEST, EVIL, **phase)
    runner = CohortRunner(
        cloud, cloud, objects, clock=clock, sleep=clock.sleep, concurrency=OneByOne()
    )
    events = list(runner.run(request))
    if phase.get("norm_factor"):  # the server judges the norms, and asks for the mean
        accepted = [
            item
            for item in events
            if isinstance(item, DeviceResult)
            and item.status == "ok"
            and layout_of(item.metrics) == LAYOUT
        ]
        again = msgspec.structs.replace(request, accepted=accepted)
        events += [item for item in runner.run(again) if isinstance(item, Folded)]
    return events


def _put(objects: MemoryObjects, device: str, blob: bytes) -> None:
    objects.data[update_key("run-1", PHASE, device)] = blob


def _check(events: list[PhaseEvent], phase: dict[str, object]) -> None:
    """Every device has one result, honest ones count, and all can be sent and stored."""
    results = {item.device: item for item in events if isinstance(item, DeviceResult)}
    assert sorted(results) == sorted((*HONEST, EVIL))
    assert all(results[device].status == "ok" for device in HONEST), results
    evil = results[EVIL]
    assert evil.code != "other" or evil.reason == "" or "could not be opened" not in evil.reason
    assert evil.reason.isprintable()
    for item in events:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=type(item)) == item
    stats = PhaseStats(PHASE, "train", 1, results=list(results.values()))
    record = summarize(1, [stats], train={}, evaluate={}, server={})
    msgspec.json.decode(msgspec.json.encode(record), type=RoundRecord)
    folded = [item for item in events if isinstance(item, Folded)]
    assert len(folded) == ("layout" in phase)
    for mean in folded:
        _check_mean(mean)
        assert EVIL not in mean.devices or evil.status == "ok"


def _check_mean(mean: Folded) -> None:
    records = decode_records(mean.records)
    assert {*HONEST} <= {*mean.devices} <= {*HONEST, EVIL}
    assert mean.count == len(mean.devices)
    for array in next(iter(records.arrays.values()), {}).values():
        assert np.isfinite(array).all()
    if EVIL not in mean.devices:
        assert records.metrics["metrics"] == {"loss": 2.0, "num-examples": 20}


class OneByOne(Threads):
    """Calls without threads: an input does the same each time, and a hundred times as fast."""

    def each(
        self, call: Callable[[Item], Answer], items: Iterable[Item], at_once: int
    ) -> Iterator[Answer]:
        return map(call, items)


class _Cloud:
    """Replies as they lie in the table; commands go nowhere."""

    def __init__(self, rows: list[StoredReply]) -> None:
        self._rows = rows

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        return

    def read(self, reply_key: str) -> list[StoredReply]:
        return self._rows
