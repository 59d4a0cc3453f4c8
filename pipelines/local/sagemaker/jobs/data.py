"""A job's data: from S3 into its folders, and back."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.local.sagemaker.outcomes import StepFailed


def bucket_and_key(uri: Any) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address.

    Raises:
        StepFailed: It is not one.

    """
    bucket, _, key = str(uri).removeprefix("s3://").partition("/")
    if not str(uri).startswith("s3://") or not bucket:
        raise StepFailed(f"{uri!r} is not an address in S3 (s3://BUCKET/KEY).")
    return bucket, key


def read(s3: Any, uri: str, limit: int) -> bytes:
    """An object's bytes.

    Raises:
        ValueError: It is longer than ``limit``.

    """
    bucket, key = bucket_and_key(uri)
    content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{uri} is longer than {limit} bytes.")
    return content


def download(s3: Any, uri: str, folder: Path) -> int:
    """Write an object, or all objects below a prefix, into a folder; returns how many.

    Raises:
        StepFailed: There is none, or a key would lead out of the folder.

    """
    bucket, prefix = bucket_and_key(uri)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for key in _keys(s3, bucket, prefix):
        if key == prefix:
            relative = key.rsplit("/", 1)[-1]
        elif key.startswith(f"{prefix.rstrip('/')}/") or not prefix:
            relative = key[len(prefix) :].lstrip("/")
        else:
            continue
        if relative and not key.endswith("/"):
            _download_one(s3, bucket, key, _inside(folder, relative))
            count += 1
    if not count:
        raise StepFailed(f"There are no objects at {uri}.")
    return count


def download_manifest(s3: Any, uri: str, folder: Path, limit: int) -> None:
    """Write the objects that a manifest lists into a folder: a prefix, then names below it.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
    """
    try:
        (first, *names) = json.loads(read(s3, uri, limit))
        prefix = first["prefix"]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("its names are not texts")
    except (ValueError, KeyError, TypeError) as error:
        raise StepFailed(f"{uri} is not a manifest: {error!r}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        bucket, key = bucket_and_key(prefix + name)
        _download_one(s3, bucket, key, _inside(folder, name))


def upload(s3: Any, folder: Path, uri: str) -> None:
    """Write all files of a folder below a prefix. Links that lead out of it are left out."""
    bucket, prefix = bucket_and_key(uri)
    root = folder.resolve()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.resolve().is_relative_to(root):
            name = file.relative_to(folder).as_posix()
            s3.upload_file(str(file), bucket, f"{prefix.rstrip('/')}/{name}".lstrip("/"))


def upload_archive(s3: Any, folder: Path, uri: str) -> None:
    """Write a folder's content as one ``tar.gz`` object."""
    bucket, key = bucket_and_key(uri)
    archive = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        for entry in sorted(folder.iterdir()):
            out.add(entry, arcname=entry.name)
    s3.upload_file(str(archive), bucket, key)
    archive.unlink()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a ``tar.gz`` into a folder.

    Raises:
        StepFailed: It is not one, or holds a path that leads out of the folder.

    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise StepFailed(f"{archive.name} cannot be unpacked: {error}.") from error


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []))


def _download_one(s3: Any, bucket: str, key: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(bucket, key, str(file))


def _inside(folder: Path, relative: str) -> Path:
    file = (folder / relative).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise StepFailed(f"The key {relative!r} leads out of the job's folder.")
    return file
