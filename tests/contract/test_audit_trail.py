"""The contract of the audit trail's objects: each is written once."""

from __future__ import annotations

import uuid

import pytest
from fakes.trail import MemoryEntries

from fl_runtime.run.aws import client
from pipelines.local.cloud import LocalCloud
from registry.audit import EntryStore, S3Entries


class EntriesContract:
    """What every trail promises. Subclasses give ``trail``."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"contract/{uuid.uuid4().hex}/"

    def test_an_object_is_written_once(self, trail: EntryStore, prefix: str) -> None:
        assert trail.put_new(f"{prefix}1", b"first")
        assert not trail.put_new(f"{prefix}1", b"second")
        assert trail.get(f"{prefix}1") == b"first"

    def test_keys_are_those_below_the_prefix_and_sorted(
        self, trail: EntryStore, prefix: str
    ) -> None:
        assert trail.keys(prefix) == []
        for name in ("00000002", "00000001"):
            trail.put_new(prefix + name, b"x")
        assert trail.keys(prefix) == [f"{prefix}00000001", f"{prefix}00000002"]


class TestMemoryEntries(EntriesContract):
    @pytest.fixture
    def trail(self) -> MemoryEntries:
        return MemoryEntries()


class TestS3Entries(EntriesContract):
    @pytest.fixture
    def trail(self, reached: LocalCloud) -> S3Entries:
        return S3Entries(client("s3"), reached.deployment.bucket)
