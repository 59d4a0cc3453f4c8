"""An S3 client over a dictionary, with the calls that jobs of a pipeline make."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError


class MemoryS3:
    """Objects by ``BUCKET/KEY``."""

    def __init__(self, **objects: bytes) -> None:
        self.data: dict[str, bytes] = dict(objects)

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self._found(Bucket, Key, "GetObject"))}

    def download_file(self, bucket: str, key: str, file: str) -> None:
        Path(file).write_bytes(self._found(bucket, key, "HeadObject"))

    def upload_file(self, file: str, bucket: str, key: str) -> None:
        self.data[f"{bucket}/{key}"] = Path(file).read_bytes()

    def get_paginator(self, _operation: str) -> MemoryS3:
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        for name in sorted(self.data):
            bucket, _, key = name.partition("/")
            if bucket == Bucket and key.startswith(Prefix):
                yield {"Contents": [{"Key": key}]}

    def _found(self, bucket: str, key: str, operation: str) -> bytes:
        if f"{bucket}/{key}" not in self.data:
            error = {"Code": "404", "Message": f"{bucket}/{key} does not exist"}
            raise ClientError({"Error": error}, operation)
        return self.data[f"{bucket}/{key}"]
