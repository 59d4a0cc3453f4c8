"""Updates that are needed once more are not downloaded once more."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.clock import Clock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.phases import LAYOUT, PHASE, phase_request
from msgspec.structs import replace

from edge.protocol.messages import Command, ObjectRef
from edge.protocol.records import Records, decode_records, digest, encode_records
from fl_runtime.aggregation.mapped import IN_MEMORY
from fl_runtime.cohort import kept as kept_module
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.keys import arrays_key, update_key
from fl_runtime.run.messages import DeviceResult, Folded, FoldedPart, array_specs

SIZE = IN_MEMORY // 4 + 100
"""Elements of a model that lies in a file."""
REF = ObjectRef("a" * 64, IN_MEMORY + 1)
RECORDS = Records(metrics={"m": {"a": 1}})


def large(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(SIZE, value, np.float32)}


def test_a_first_round_downloads_each_update_once() -> None:
    class Counted(MemoryObjects):
        downloads: list[str] = []

        def download(self, key: str, file, limit: int) -> str:
            self.downloads.append(key)
            return super().download(key, file, limit)

    objects = Counted()
    weights = encode_records(Records(arrays={"arrays": large(0.0)}))
    objects.put(arrays_key("run-1", digest(weights)), weights)

    def device(value: float):
        def train(command: Command, content: Records) -> Records:
            metrics = {"num-examples": 10, "loss": value}
            return Records(arrays={"arrays": large(value)}, metrics={"metrics": metrics})

        return train

    fleet, clock = MemoryFleet(objects, {"a": device(1.0), "b": device(2.0)}), Clock()
    request = phase_request(
        "a",
        "b",
        arrays=ObjectRef(digest(weights), len(weights)),
        specs=array_specs(large(0.0)),
        size_limit=2 * len(weights),
        norm_factor=10.0,
        layout=LAYOUT,
    )
    runner = CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep)
    judged = [item for item in runner.run(request) if isinstance(item, DeviceResult)]
    assert {item.status for item in judged} == {"ok"}
    objects.data[update_key("run-1", PHASE, "a")] = b"written over after the check"
    events = list(runner.run(replace(request, accepted=judged)))
    file = b"".join(
        item.data if isinstance(item, FoldedPart) else item.records
        for item in events
        if isinstance(item, FoldedPart | Folded)
    )
    np.testing.assert_array_equal(decode_records(file).arrays["arrays"]["w"], large(1.5)["w"])
    assert sorted(objects.downloads) == sorted(
        [arrays_key("run-1", digest(weights)), *(update_key("run-1", PHASE, d) for d in "ab")]
    )


def test_what_is_kept_is_the_update_of_that_reply_once() -> None:
    kept, request = KeptUpdates(), phase_request("a")
    kept.keep(request, "a", REF, RECORDS)
    assert kept.take(replace(request, phase="another"), "a", REF) is None
    assert kept.take(request, "b", REF) is None
    assert kept.take(request, "a", REF) is RECORDS
    assert kept.take(request, "a", REF) is None
    kept.keep(request, "a", REF, RECORDS)
    assert kept.take(request, "a", ObjectRef("b" * 64, REF.size)) is None


def test_a_cohorts_next_phase_drops_the_files_of_the_one_before() -> None:
    kept, request = KeptUpdates(), phase_request("a")
    kept.keep(request, "a", REF, RECORDS)
    kept.keep(replace(request, phase="next"), "b", REF, RECORDS)
    assert kept.take(request, "a", REF) is None


@pytest.mark.parametrize("full", [{"FILES": 1}, {"BYTES": 2 * IN_MEMORY}])
def test_there_is_room_for_so_many_files_and_small_ones_are_read_again(
    full: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, most),) = full.items()
    monkeypatch.setattr(kept_module, name, most)
    kept, request = KeptUpdates(), phase_request("a", "b")
    small = ObjectRef("c" * 64, IN_MEMORY)
    kept.keep(request, "c", small, RECORDS)
    kept.keep(request, "a", REF, RECORDS)
    kept.keep(request, "b", REF, RECORDS)
    assert [kept.take(request, name, REF) for name in "ab"] == [RECORDS, None]
    assert kept.take(request, "c", small) is None
