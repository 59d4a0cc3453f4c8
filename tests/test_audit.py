"""The audit trail: nobody changes, removes or cuts off what was decided without being found out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_runtime.aws import client
from pipelines.local.cloud import LocalCloud
from registry.audit import AuditTrail, Entry, Exists, S3Trail


class Memory:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.rival: list[bytes] = []

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        return self.data[key]

    def put_new(self, key: str, data: bytes) -> None:
        if self.rival:
            self.data.setdefault(key, self.rival.pop())
        if key in self.data:
            raise Exists
        self.data[key] = data


def filled(count: int) -> tuple[Memory, AuditTrail, str]:
    memory = Memory()
    trail, head = AuditTrail(memory), ""
    for number in range(count):
        head = trail.append(at=float(number), who="ann", what="approve", subject=f"wind/{number}", why="good", score=number)
    return memory, trail, head


def test_entries_are_chained_and_whole() -> None:
    _, trail, head = filled(5)
    assert trail.verify([head]) == []
    assert [entry.number for entry in trail.entries()] == [1, 2, 3, 4, 5]
    assert next(iter(trail.entries())).details == {"score": 0}


@given(st.integers(0, 5), st.integers(1, 6), st.sampled_from(["change", "remove", "swap", "garbage"]))
def test_tampering_is_found(at: int, count: int, how: str) -> None:
    memory, trail, head = filled(count)
    key = sorted(memory.data)[at % count]
    if how == "change":
        memory.data[key] = msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(memory.data[key], type=Entry), who="eve"))
    elif how == "remove":
        del memory.data[key]
    elif how == "garbage":
        memory.data[key] = b"{"
    elif count > 1:
        other = next(k for k in memory.data if k != key)
        memory.data[key], memory.data[other] = memory.data[other], memory.data[key]
    else:
        return
    assert trail.verify([head])


def test_two_that_append_at_once_come_one_after_the_other() -> None:
    memory, trail, _ = filled(2)
    rival = Entry(number=3, at=9.0, who="bob", what="reject", subject="wind/9", why="", before=trail.append(at=9.0, who="x", what="y", subject="z", why=""))
    memory.rival = [msgspec.json.encode(msgspec.structs.replace(rival, number=4))]
    head = trail.append(at=10.0, who="ann", what="approve", subject="wind/1", why="")
    assert [entry.who for entry in trail.entries()] == ["ann", "ann", "x", "bob", "ann"]
    assert trail.verify([head]) == []


def test_s3_writes_an_entry_once(reached: LocalCloud) -> None:
    trail = S3Trail(client("s3"), reached.deployment.bucket)
    trail.put_new("scratch/once.json", b"first")
    with pytest.raises(Exists):
        trail.put_new("scratch/once.json", b"second")
    assert trail.get("scratch/once.json") == b"first"
    assert trail.keys("scratch/") == ["scratch/once.json"]
