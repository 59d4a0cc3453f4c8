"""``fleet --refusals`` counts what was refused of each device, and says why it was last."""

from __future__ import annotations

import msgspec
from fakes.objects import MemoryObjects
from fakes.runs import record

from fl_runtime.run.keys import round_key
from fl_runtime.run.records import DeviceRow
from pipelines.cli.commands.operate.devices import refusals_text
from pipelines.desk.refusals import refusals


def row(number: int, device: str, code: str = "", reason: str = "") -> DeviceRow:
    return DeviceRow(
        round=number,
        phase="p",
        kind="train",
        device=device,
        status="error" if code else "ok",
        code=code,
        reason=reason,
        digest="",
        seconds_fetch=0.0,
        seconds_work=0.0,
        seconds_upload=0.0,
        bytes_up=0,
        bytes_down=0,
        metrics={},
    )


class ListedObjects(MemoryObjects):
    """Objects that can be listed."""

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))


def test_refusals_are_counted_by_device_and_reason() -> None:
    objects = ListedObjects()
    for run, number, rows in (
        ("run-2", 1, [row(1, "a", "shape", "newest"), row(1, "b"), row(1, "c", "no-reply")]),
        ("run-1", 1, [row(1, "a", "shape", "old"), row(1, "b", "unsigned", "not signed")]),
        ("run-1", 2, [row(2, "a", "not-finite", "NaN"), row(2, "a", "shape", "older")]),
    ):
        objects.put(round_key(run, number), msgspec.json.encode(record(number, *rows)))
    objects.put(round_key("run-1", 3), b"{")
    found = refusals(objects, ["run-2", "run-1", "run-0"])
    assert [(item.device, item.code, item.count) for item in found] == [
        ("a", "shape", 3),
        ("a", "not-finite", 1),
        ("b", "unsigned", 1),
    ]
    assert (found[0].run, found[0].round, found[0].reason) == ("run-2", 1, "newest")


def test_what_was_refused_is_a_table() -> None:
    objects = ListedObjects()
    data = msgspec.json.encode(record(1, row(1, "a", "shape", "array 'w' has shape (2,)")))
    objects.put(round_key("run-1", 1), data)
    text = refusals_text(refusals(objects, ["run-1"]), 3)
    assert "a       shape      1  run-1/1  array 'w'" in text
    assert refusals_text([], 3) == "nothing was refused in the rounds of the last 3 runs"
