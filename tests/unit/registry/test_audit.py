"""The audit trail: nobody changes, removes or cuts off what was decided without being found out."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from fakes.evidence import package
from fakes.objects import MemoryObjects
from fakes.registries import MemoryModels
from fakes.trail import MemoryEntries
from hypothesis import given
from hypothesis import strategies as st

from registry.audit import AuditEntry, AuditTrail, S3Entries
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.policy import Policy, put_in_force


def filled(count: int) -> tuple[MemoryEntries, AuditTrail, str]:
    memory = MemoryEntries()
    trail, head = AuditTrail(memory), ""
    for number in range(count):
        head = trail.append(
            at=float(number),
            who="ann",
            what="approve",
            subject=f"wind/{number}",
            why="good",
            score=number,
        )
    return memory, trail, head


def test_entries_are_chained_and_whole() -> None:
    _, trail, head = filled(5)
    assert trail.verify([head]) == []
    assert [entry.number for entry in trail.entries()] == [1, 2, 3, 4, 5]
    assert next(iter(trail.entries())).details == {"score": 0}


@given(
    st.integers(0, 5), st.integers(1, 6), st.sampled_from(["change", "remove", "swap", "garbage"])
)
def test_tampering_is_found(at: int, count: int, how: str) -> None:
    memory, trail, head = filled(count)
    key = sorted(memory.data)[at % count]
    if how == "change":
        memory.data[key] = msgspec.json.encode(
            msgspec.structs.replace(
                msgspec.json.decode(memory.data[key], type=AuditEntry), who="eve"
            )
        )
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
    rival = AuditEntry(
        number=3,
        at=9.0,
        who="bob",
        what="reject",
        subject="wind/9",
        why="",
        before=trail.append(at=9.0, who="x", what="y", subject="z", why=""),
    )
    memory.rival = [msgspec.json.encode(msgspec.structs.replace(rival, number=4))]
    head = trail.append(at=10.0, who="ann", what="approve", subject="wind/1", why="")
    assert [entry.who for entry in trail.entries()] == ["ann", "ann", "x", "bob", "ann"]
    assert trail.verify([head]) == []


def test_a_rejection_counts_however_long_ago_it_was() -> None:
    _, trail, _ = filled(1)
    trail.append(at=1.0, who="bob", what="reject", subject="arn:0", why="no")
    for number in range(60):
        trail.append(at=2.0, who="ann", what="approve", subject=f"sun/{number}", why="good")
    assert trail.decision("wind/0", "arn:0") == "reject"
    assert trail.decision("wind/0") == "approve"
    assert trail.decision("wind/9") == ""


def test_an_entry_that_cannot_be_read_hides_no_other() -> None:
    memory, trail, _ = filled(3)
    memory.data[sorted(memory.data)[1]] = b"{"
    assert trail.decision("wind/0") == "approve"


def test_a_policy_that_is_cut_off_the_trail_is_missed() -> None:
    models, memory, objects = MlflowRegistry(MemoryModels()), MemoryEntries(), MemoryObjects()
    trail = AuditTrail(memory, lambda entry, head: models.remember_head(entry.subject, head))
    models.register(package())
    trail.append(at=1.0, who="ann", what="approve", subject="x/1", why="good")
    put_in_force(objects, trail, Policy(), who="eve", at=2.0)
    assert trail.verify(models.audit_heads()) == []
    del memory.data[sorted(memory.data)[-1]]
    assert "cut off" in trail.verify(models.audit_heads())[0]


@pytest.mark.parametrize("name", ["zzz.json", "00000004.json.bak", "x/00000009.json", "-1.json"])
def test_a_foreign_object_among_the_entries_stops_no_append_and_is_reported(name: str) -> None:
    memory, trail, _ = filled(3)
    memory.data[f"audit/{name}"] = b"{}"
    head = trail.append(at=9.0, who="ann", what="reject", subject="wind/1", why="no")
    assert [entry.number for entry in trail.entries()] == [1, 2, 3, 4]
    assert trail.decision("wind/1") == "reject"
    assert trail.verify([head]) == [f"audit/{name} is no entry of the trail."]


@pytest.mark.parametrize("garbage", [b"{", b"\xff", b'{"details": ' + b"[" * 100_000])
def test_an_entry_of_garbage_hides_no_other_and_is_reported(garbage: bytes) -> None:
    memory, trail, _ = filled(3)
    memory.data[sorted(memory.data)[1]] = garbage
    assert [entry.number for entry in trail.entries()] == [1, 3]
    assert trail.decision("wind/2") == "approve"
    assert "cannot be read" in trail.verify()[0]


def test_a_number_that_leaves_no_room_is_an_error_and_no_endless_loop() -> None:
    memory, trail, _ = filled(1)
    memory.data["audit/9999999999999999.json"] = memory.data["audit/00000001.json"]
    trail.append(at=1.0, who="ann", what="approve", subject="wind/1", why="")
    with pytest.raises(RegistryError, match="`mledgeops audit` says"):
        trail.append(at=2.0, who="ann", what="approve", subject="wind/2", why="")


def test_every_violation_is_told_and_the_hashes_go_on_after_it() -> None:
    memory, trail, head = filled(5)
    keys = sorted(memory.data)
    assert trail.verify(["0" * 64, head]) == [
        f"The entry with the hash {'0' * 12}, which MLflow remembers, is not in the trail: "
        "it was changed or cut off."
    ]
    memory.data[keys[1]] = b"{"
    del memory.data[keys[3]]
    assert trail.verify() == [
        f"The entry {keys[1]} cannot be read.",
        "Entry 3 does not follow from the one before it: one of them was changed.",
        f"Entry 4 is missing: {keys[4]} stands in its place.",
        "Entry 5 does not follow from the one before it: one of them was changed.",
    ]


def test_a_search_reads_each_entry_once_and_finds_the_last_of_an_act() -> None:
    memory, trail, _ = filled(3)
    read: list[str] = []
    get = memory.get
    memory.get = lambda key: read.append(key) or get(key)  # type: ignore[method-assign,func-returns-value]
    trail.append(at=5.0, who="bob", what="rollout", subject="wind/1", why="")
    read.clear()
    assert trail.decision("wind/1") == "approve", "a rollout is no decision"
    last = trail.last(["wind/1"], ["rollout", "approve"])
    assert last and (last.what, last.who) == ("rollout", "bob")
    assert sorted(read) == sorted(memory.data)
    assert trail.last(["wind/1"], ["reject"]) is None
    assert trail.last(["wind/9"], ["approve"]) is None


class Taken(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class OneKey:
    """An S3 client whose writes are refused by a code; empty: they succeed."""

    exceptions = SimpleNamespace(ClientError=Taken)

    def __init__(self, code: str) -> None:
        self.code = code

    def put_object(self, **request: object) -> None:
        assert request["IfNoneMatch"] == "*"
        if self.code:
            raise Taken(self.code)

    def get_paginator(self, name: str) -> OneKey:
        return self

    def paginate(self, **request: object) -> list[dict]:
        assert (request["Bucket"], request["Prefix"]) == ("b", "audit/")
        pages: list[dict] = [{"Contents": [{"Key": "2"}, {"Key": "1"}]}, {}]
        return [*pages, {"Contents": [{"Key": "0"}]}]


def test_a_write_that_lost_is_told_from_one_that_failed() -> None:
    assert S3Entries(OneKey(""), "b").put_new("k", b"") is True
    for code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
        assert S3Entries(OneKey(code), "b").put_new("k", b"") is False
    with pytest.raises(Taken):
        S3Entries(OneKey("AccessDenied"), "b").put_new("k", b"")


def test_the_keys_of_all_pages_are_listed_in_order() -> None:
    assert S3Entries(OneKey(""), "b").keys("audit/") == ["0", "1", "2"]


@pytest.mark.parametrize("key", ["audit/00000003.json", "audit/00000002.json"])
def test_an_entry_says_its_number_where_it_stands(key: str) -> None:
    """An entry that was moved, and one whose own number was changed."""
    memory, trail, _ = filled(2)
    (first, second) = sorted(memory.data)
    entry = msgspec.json.decode(memory.data.pop(second), type=AuditEntry)
    if key == second:
        entry = msgspec.structs.replace(entry, number=3)
    memory.data[key] = msgspec.json.encode(entry)
    assert trail.verify() == [f"Entry 2 is missing: {key} stands in its place."], first
