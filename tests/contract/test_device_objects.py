"""The contract of a device's objects: download by reference with a check, upload by URL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.objects import FileObjects

from edge.addresses import Addresses
from edge.object_transfer import HttpObjects, ObjectError, Objects
from edge.protocol.messages import ObjectRef
from edge.protocol.records import digest
from fl_runtime.run.aws import S3Objects, client
from pipelines.local.cloud import LocalCloud

BYTES = b"weights" * 1000


@dataclass
class Depot:
    """A device's objects, and the side that has them in store."""

    objects: Objects
    offer: Callable[[bytes], str]
    """Store bytes; returns the URL to read them."""
    absent: str
    """A URL that leads to nothing."""
    target: str
    """A URL to upload to."""
    uploaded: Callable[[], bytes]


class DeviceObjectsContract:
    """What every implementation promises. Subclasses give ``depot``."""

    def test_a_download_is_a_file_with_the_objects_bytes(self, depot: Depot) -> None:
        ref = ObjectRef(digest(BYTES), len(BYTES), depot.offer(BYTES))
        file, size = asyncio.run(depot.objects.fetch(ref, 20.0))
        assert (file.read_bytes(), size) == (BYTES, len(BYTES))

    def test_other_bytes_than_announced_are_a_bad_digest(self, depot: Depot) -> None:
        ref = ObjectRef("0" * 64, len(BYTES), depot.offer(BYTES))
        with pytest.raises(ObjectError) as raised:
            asyncio.run(depot.objects.fetch(ref, 20.0))
        assert raised.value.code == "bad-digest"

    def test_an_absent_object_fails_to_download(self, depot: Depot) -> None:
        ref = ObjectRef(digest(BYTES), len(BYTES), depot.absent)
        with pytest.raises(ObjectError) as raised:
            asyncio.run(depot.objects.fetch(ref, 20.0))
        assert raised.value.code == "download-failed"

    def test_an_upload_arrives(self, depot: Depot, tmp_path: Path) -> None:
        file = tmp_path / "update"
        file.write_bytes(BYTES)
        asyncio.run(depot.objects.put(depot.target, file, 20.0))
        assert depot.uploaded() == BYTES


class TestFileObjects(DeviceObjectsContract):
    @pytest.fixture
    def depot(self, tmp_path: Path) -> Depot:
        objects = FileObjects(tmp_path)

        def offer(data: bytes) -> str:
            objects.data["offered"] = data
            return "offered"

        return Depot(objects, offer, "absent", "target", lambda: objects.uploads["target"])


class TestHttpObjects(DeviceObjectsContract):
    """By presigned URL, from the local cloud's S3."""

    @pytest.fixture
    def depot(self, reached: LocalCloud, tmp_path: Path) -> Depot:
        store = S3Objects(client("s3"), reached.deployment.bucket)
        prefix = f"contract/{uuid.uuid4().hex}/"

        def offer(data: bytes) -> str:
            store.put(f"{prefix}offered", data)
            return store.url_to_get(f"{prefix}offered", 60)

        return Depot(
            HttpObjects(tmp_path / "cache", Addresses(loopback=True)),
            offer,
            store.url_to_get(f"{prefix}absent", 60),
            store.url_to_put(f"{prefix}target", 60, len(BYTES)),
            lambda: store.get(f"{prefix}target"),
        )

    def test_an_upload_beyond_its_limit_does_not_arrive(self, depot: Depot, tmp_path: Path) -> None:
        file = tmp_path / "update"
        file.write_bytes(BYTES + b"x")
        with pytest.raises(ObjectError) as raised:
            asyncio.run(depot.objects.put(depot.target, file, 20.0))
        assert raised.value.code == "upload-failed"
