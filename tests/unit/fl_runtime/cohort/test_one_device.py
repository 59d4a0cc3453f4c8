"""One device's update, whatever it holds, costs that device its result and nobody else theirs."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes.clock import Clock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.phases import LAYOUT, MODEL, PHASE, device_result, phase_request, stored_weights, update

from edge.protocol.messages import ObjectRef, Reply
from edge.protocol.records import Records, digest, encode_records
from fl_runtime.cohort.fold import Fold
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.keys import reply_key, update_key
from fl_runtime.run.messages import DeviceResult, Folded
from fl_runtime.run.ports import StoredReply

HONEST = 22


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def empty(shape: list[int]) -> bytes:
    skeleton = {"order": ["a"], "arrays": {"a": ["w"]}, "metrics": {}, "configs": {}}
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    return file({"__metadata__": {"records": json.dumps(skeleton)}, "0": tensor})


class Phase:
    """Replies and updates of a phase, with the results by device and the mean."""

    def __init__(self, kind: str = "train") -> None:
        self.objects, self.kind = stored_weights(), kind
        self.bodies: dict[str, str] = {}

    def uploads(self, device: str, blob: bytes) -> None:
        self.objects.data[update_key("run-1", PHASE, device)] = blob
        ref = ObjectRef(digest(blob), len(blob))
        reply = Reply(run="run-1", phase=PHASE, message_id=f"m-{device}", status="ok", update=ref)
        self.bodies[device] = msgspec.json.encode(reply).decode()

    def run(self, objects: MemoryObjects | None = None) -> tuple[dict[str, DeviceResult], int]:
        fleet, clock = MemoryFleet(self.objects, {}), Clock()
        fleet.send = lambda *_: None  # type: ignore[method-assign]
        request = phase_request(*self.bodies, kind=self.kind, size_limit=4 * 2**20, layout=LAYOUT)
        key = reply_key(request.run, request.phase, request.cohort)
        fleet.rows[key] = {
            device: StoredReply("f", device, body) for device, body in self.bodies.items()
        }
        store = objects or self.objects
        runner = CohortRunner(fleet, fleet, store, clock=clock, sleep=clock.sleep)
        events = list(runner.run(request))
        results = [item for item in events if isinstance(item, DeviceResult)]
        assert sorted(item.device for item in results) == sorted(self.bodies)
        for item in events:
            msgspec.msgpack.encode(item)  # as a proxy sends it
        counted = sum(item.count for item in events if isinstance(item, Folded))
        return {item.device: item for item in results}, counted


def honest(kind: str = "train") -> Phase:
    phase = Phase(kind)
    for number in range(HONEST):
        phase.uploads(f"d{number}", encode_records(update(1.0, loss=0.5)))
    return phase


@pytest.mark.parametrize(
    "blob",
    [
        empty([0, 2**63]),
        empty([2**63, 0]),
        file({"__metadata__": {"records": "\ud800"}}),
        file({"__metadata__": {"records": '{"order": ["\ud800"]}'}}),
        file(b'{"a":' * 100_000),
        file({"0": {"dtype": "\ud800", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        encode_records(Records(arrays={"a": {"w": np.full(3, 1e300)}})),
    ],
)
def test_an_update_that_nobody_thought_of_ends_nothing(blob: bytes) -> None:
    phase = honest()
    phase.uploads("evil", blob)
    results, counted = phase.run()
    assert (results["evil"].status, counted) == ("error", HONEST)
    assert results["evil"].code not in ("other", "not-opened")


@pytest.mark.parametrize("body", ["", "\ud800", '{"reason": "\ud800"}', "[" * 8000])
def test_a_reply_that_nobody_thought_of_ends_nothing(body: str) -> None:
    phase = honest()
    phase.bodies["evil"] = body
    results, counted = phase.run()
    assert (results["evil"].code, counted) == ("malformed", HONEST)


def test_a_fault_of_ours_costs_one_device_and_is_logged_with_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryObjects):
        def get(self, key: str, limit: int | None = None) -> bytes:
            if "/d3." in key:
                raise ZeroDivisionError("ours")
            return super().get(key, limit)

    phase = honest()
    broken = Broken()
    broken.data = phase.objects.data
    with caplog.at_level(logging.ERROR):
        results, counted = phase.run(broken)
    assert (results["d3"].code, counted) == ("not-opened", HONEST - 1)
    (record,) = [item for item in caplog.records if item.getMessage() == "update-not-opened"]
    assert record.fields["error"] == "ZeroDivisionError"  # type: ignore[attr-defined]


def test_arrays_in_an_evaluation_do_not_matter() -> None:
    phase = honest("evaluate")
    for device, shape in (("evil-1", (4,)), ("evil-2", (5,))):
        metrics = {"metrics": {"loss": 0.5, "num-examples": 10}}
        arrays = {"arrays": {"w": np.zeros(shape, np.float32)}}
        phase.uploads(device, encode_records(Records(arrays=arrays, metrics=metrics)))
    results, counted = phase.run()
    assert {result.status for result in results.values()} == {"ok"}
    assert counted == 0, "the server averages metrics"


def test_updates_of_other_shapes_do_not_spoil_the_sums() -> None:
    fold = Fold("p", "num-examples")
    metrics = {"num-examples": 10, "loss": 1.0}
    results = [fold.add(device_result("a", metrics=metrics), update(1.0, loss=1.0))]
    other = Records(
        arrays={"arrays": {"w": np.zeros((3, 2), np.float32)}}, metrics={"metrics": metrics}
    )
    results.append(fold.add(device_result("b", metrics=metrics), other))
    results.append(fold.add(device_result("c", metrics={"loss": 1.0}), update(1.0, loss=1.0)))
    results.append(fold.add(device_result("d", metrics=metrics), update(3.0, loss=1.0)))
    codes = {item.device: item.code for item in results}
    assert (codes["a"], codes["d"]) == ("", "")
    assert codes["b"] and codes["c"]
    (mean,) = fold.finish()
    assert (mean.count, mean.devices) == (2, ["a", "d"])


@pytest.mark.parametrize(
    "metrics",
    [
        {"x" * 300: 1.0},
        {"": 1.0},
        {"\u202eevil": 1.0},
        {"a\nb": 1.0},
        {f"metric-{number}": 1.0 for number in range(1001)},
        {"huge": [0.0] * 100_001},
        {"huge": 1e250},
    ],
)
def test_metrics_have_bounds(metrics: dict[str, Any]) -> None:
    phase = honest()
    records = Records(
        arrays={"arrays": MODEL}, metrics={"metrics": {"num-examples": 10, **metrics}}
    )
    phase.uploads("evil", encode_records(records))
    results, counted = phase.run()
    assert counted == HONEST
    assert results["evil"].code in ("metrics", "not-finite")


def test_a_devices_reason_is_shown_as_text() -> None:
    phase = honest()
    reply = Reply(
        run="run-1",
        phase=PHASE,
        message_id="m-evil",
        status="error",
        code="app-error",
        reason="\x1b[2J\u202eall is well",
    )
    phase.bodies["evil"] = msgspec.json.encode(reply).decode()
    results, _ = phase.run()
    assert results["evil"].reason.isprintable()
    assert "all is well" in results["evil"].reason
