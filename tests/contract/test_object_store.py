"""The contract of the server's object store."""

from __future__ import annotations

import hashlib
import io
import uuid

import pytest
from fakes.objects import MemoryObjects

from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.ports import ObjectStore
from pipelines.local.cloud import LocalCloud


class ObjectStoreContract:
    """What every object store promises. Subclasses give ``store``, empty below ``prefix``."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"contract/{uuid.uuid4().hex}/"

    def test_an_object_is_read_as_it_was_written(self, store: ObjectStore, prefix: str) -> None:
        store.put(f"{prefix}a", b"12345")
        assert store.get(f"{prefix}a") == b"12345"

    def test_the_last_write_wins(self, store: ObjectStore, prefix: str) -> None:
        store.put(f"{prefix}a", b"first")
        store.put(f"{prefix}a", b"second")
        assert store.get(f"{prefix}a") == b"second"

    def test_an_empty_object_is_an_object(self, store: ObjectStore, prefix: str) -> None:
        store.put(f"{prefix}a", b"")
        assert store.get(f"{prefix}a", 0) == b""

    def test_an_absent_object_is_missing(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ObjectMissing):
            store.get(f"{prefix}absent")

    def test_an_object_above_the_limit_is_missing(self, store: ObjectStore, prefix: str) -> None:
        store.put(f"{prefix}a", b"12345")
        assert store.get(f"{prefix}a", 5) == b"12345"
        with pytest.raises(ObjectMissing):
            store.get(f"{prefix}a", 4)

    def test_a_download_gives_content_and_digest(self, store: ObjectStore, prefix: str) -> None:
        data = bytes(range(256)) * 8193  # two parts and a bit
        store.put(f"{prefix}a", data)
        file = io.BytesIO()
        assert store.download(f"{prefix}a", file, len(data)) == hashlib.sha256(data).hexdigest()
        assert file.getvalue() == data
        for key, limit in ((f"{prefix}a", len(data) - 1), (f"{prefix}absent", 9)):
            with pytest.raises(ObjectMissing):
                store.download(key, io.BytesIO(), limit)

    def test_a_discarded_object_is_missing_and_may_be_discarded_again(
        self, store: ObjectStore, prefix: str
    ) -> None:
        store.put(f"{prefix}a", b"12345")
        for _ in range(2):
            store.discard(f"{prefix}a")
            with pytest.raises(ObjectMissing):
                store.get(f"{prefix}a")

    def test_every_object_has_a_url_of_its_own(self, store: ObjectStore, prefix: str) -> None:
        urls = {store.url_to_get(f"{prefix}{name}", 60) for name in "ab"}
        urls |= {store.url_to_put(f"{prefix}{name}", 60, 9) for name in "cd"}
        assert len(urls) == 4


class TestMemoryObjects(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> MemoryObjects:
        return MemoryObjects()


class TestS3Objects(ObjectStoreContract):
    @pytest.fixture
    def store(self, reached: LocalCloud) -> S3Objects:
        return S3Objects(client("s3"), reached.deployment.bucket)

    def test_keys_are_listed_by_prefix_and_sorted(self, store: S3Objects, prefix: str) -> None:
        for name in "ba":
            store.put(prefix + name, b"x")
        assert store.keys(prefix) == [f"{prefix}a", f"{prefix}b"]
        assert store.size(f"{prefix}a") == 1
