"""Who decided what, when and why: an append-only trail whose entries are chained by their hashes.

Each entry is an object of its own, written only if it is not there yet (S3 conditional write), and
holds the hash of the one
before. Whoever changes, removes or reorders an entry breaks the chain; whoever cuts off its end is
found out by the head,
which is written elsewhere too (the version's tag in MLflow).
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

PREFIX = "audit/"
FIRST = "0" * 64
RECENT = 50
"""Entries among which a rival's decision is looked for."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, or one thing the system did by itself (``who``: ``mledgeops``)."""

    number: int
    at: float
    who: str
    what: str
    """``approve``, ``reject``, ``rollout``, ``rollout-ended``, ``rollback``, ``policy``, ``held``,
    ``catch-up``.
    """
    subject: str
    """A model version, a package's ARN, a fleet."""
    why: str
    details: dict[str, Any] = {}
    before: str
    """The hash of the entry before."""


class Exists(Exception):
    """The object is there already."""


class Trail(Protocol):
    """Port: numbered objects that are written once."""

    def keys(self, prefix: str) -> list[str]:
        """All keys, sorted."""

    def get(self, key: str) -> bytes:
        """An object."""

    def put_new(self, key: str, data: bytes) -> None:
        """Write an object; raises Exists when it is there."""


class AuditTrail:
    """Appends and verifies."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def append(
        self, *, at: float, who: str, what: str, subject: str, why: str, **details: Any
    ) -> str:
        """Add an entry; returns its hash, the new head. Two that append at once come one after the
        other.
        """
        while True:
            keys = self._trail.keys(PREFIX)
            before = _hash(self._trail.get(keys[-1])) if keys else FIRST
            number = int(keys[-1].removeprefix(PREFIX).removesuffix(".json")) + 1 if keys else 1
            entry = Entry(
                number=number,
                at=at,
                who=who,
                what=what,
                subject=subject,
                why=why,
                details=details,
                before=before,
            )
            data = msgspec.json.encode(entry)
            try:
                self._trail.put_new(_key(number), data)
            except Exists:
                continue
            return _hash(data)

    def entries(self) -> Iterator[Entry]:
        """From the first to the last."""
        for key in self._trail.keys(PREFIX):  # not a dict
            yield msgspec.json.decode(self._trail.get(key), type=Entry)

    def decision(self, subject: str) -> str:
        """The last of ``approve`` and ``reject`` among the latest entries about a subject; empty
        when neither is there.
        """
        for key in reversed(self._trail.keys(PREFIX)[-RECENT:]):
            entry = msgspec.json.decode(self._trail.get(key), type=Entry)
            if entry.subject == subject and entry.what in ("approve", "reject"):
                return entry.what
        return ""

    def verify(self, heads: Iterable[str] = ()) -> list[str]:
        """What is wrong with the trail, one sentence each; nothing when it is whole. ``heads``:
        hashes that must be in it.
        """
        wrong, before, seen = [], FIRST, set()
        for position, key in enumerate(self._trail.keys(PREFIX), 1):
            data = self._trail.get(key)
            try:
                entry = msgspec.json.decode(data, type=Entry)
            except msgspec.DecodeError:
                wrong.append(f"The entry {key} cannot be read.")
                before = _hash(data)
                continue
            if key != _key(position) or entry.number != position:
                wrong.append(f"Entry {position} is missing: {key} stands in its place.")
                position = entry.number
            if entry.before != before:
                wrong.append(
                    f"Entry {entry.number} does not follow from the one before it: one of them was changed."
                )
            before = _hash(data)
            seen.add(before)
        lost = [head for head in heads if head not in seen]
        wrong += [
            f"The entry with the hash {head[:12]}, which MLflow remembers, is not in the trail: it was changed or cut off."
            for head in lost
        ]
        return wrong


class S3Trail:
    """:class:`Trail` in a bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._client = s3
        self._bucket = bucket

    def keys(self, prefix: str) -> list[str]:
        """All keys, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        """An object."""
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return data

    def put_new(self, key: str, data: bytes) -> None:
        """``If-None-Match: *`` closes the race of two writers."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
                "412",
                "409",
            ):
                raise Exists from error
            raise


def _key(number: int) -> str:
    return f"{PREFIX}{number:08d}.json"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
