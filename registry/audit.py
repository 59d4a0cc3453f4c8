"""The audit trail: append-only entries, each holding the hash of the entry before it.

Each entry is an S3 object of its own, written on condition that its key does not exist yet. To
change, remove or reorder an entry breaks the chain. To cut off its end is revealed by the head,
which MLflow stores too: every append passes it to ``remember``.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.text import parse_json
from registry.errors import RegistryError

PREFIX = "audit/"
SYSTEM = "mledgeops"
"""The author of entries about what no person decided."""
_FIRST_HASH = "0" * 64
_ATTEMPTS = 100
"""Appends that may lose against concurrent ones before an append gives up."""
_NAME = re.compile(rf"{PREFIX}([0-9]{{8,16}})\.json")
_READERS = 16
"""Entries that a search reads at the same time."""
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""S3's error codes for a conditional write that lost: to an object that exists, or to a concurrent
write.
"""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, or one act of the system (``who`` is :data:`SYSTEM`)."""

    number: int
    at: float
    """Unix seconds."""
    who: str
    what: str
    """``linked``, ``approve``, ``override``, ``reject``, ``rollout``, ``rollout-ended``,
    ``policy``, ``held``, ``refused``, ``catch-up``, ``block`` or ``unblock``.
    """
    subject: str
    """A model version, a package's ARN, a fleet or a device."""
    why: str
    details: dict[str, Any] = {}
    before: str
    """SHA-256 of the entry before."""


class EntryStore(Protocol):
    """Port: objects that are written once."""

    def keys(self, prefix: str) -> list[str]:
        """All keys with a prefix, sorted."""

    def get(self, key: str) -> bytes:
        """An object."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object; False, and nothing is written, when its key exists."""


Remember = Callable[[AuditEntry, str], None]
"""Stores an entry's hash outside the trail."""


class AuditTrail:
    """Appends to the trail, searches it and verifies it.

    Args:
        store: The entries.
        remember: Called after each append with the entry and its hash, the new head.

    """

    def __init__(self, store: EntryStore, remember: Remember = lambda _, __: None) -> None:
        self._store = store
        self._remember = remember
        self._read: dict[str, AuditEntry] = {}
        """Entries that were read, by key: none ever changes."""

    def append(
        self, *, at: float, who: str, what: str, subject: str, why: str, **details: Any
    ) -> str:
        """Add an entry and return its hash, the new head. Concurrent appends are put in order.

        Raises RegistryError when none of its tries succeeds.
        """
        for _ in range(_ATTEMPTS):
            keys = self._keys()
            number = _number(keys[-1]) + 1 if keys else 1
            entry = AuditEntry(
                number=number,
                at=at,
                who=who,
                what=what,
                subject=subject,
                why=why,
                details=details,
                before=_hash(self._store.get(keys[-1])) if keys else _FIRST_HASH,
            )
            data = msgspec.json.encode(entry)
            # False: a concurrent append took the number. Read the new end and try the next one.
            if self._store.put_new(_key(number), data):
                self._remember(entry, _hash(data))
                return _hash(data)
        raise RegistryError(
            f"Nothing can be added to the audit trail after {keys[-1]}: `mledgeops audit` says what"
            " is wrong with it."
        )

    def entries(self) -> Iterator[AuditEntry]:
        """All entries, the first one first; those that cannot be read are left out."""
        found = (_entry(self._store.get(key)) for key in self._keys())
        return (entry for entry in found if entry is not None)

    def last(self, subjects: Iterable[str], acts: Iterable[str]) -> AuditEntry | None:
        """The last entry about one of the subjects whose act is one of ``acts``.

        It searches the whole trail: a rejection counts however long ago it was. Entries that
        cannot be read are skipped; :meth:`verify` reports them.
        """
        wanted, kinds, keys = set(subjects), set(acts), self._keys()
        unread = [key for key in keys if key not in self._read]
        with ThreadPoolExecutor(_READERS) as readers:
            for key, data in zip(unread, readers.map(self._store.get, unread), strict=True):
                if (entry := _entry(data)) is not None:
                    self._read[key] = entry
        found = (self._read[key] for key in reversed(keys) if key in self._read)
        return next((e for e in found if e.subject in wanted and e.what in kinds), None)

    def decision(self, *subjects: str) -> str:
        """The last ``approve`` or ``reject`` about a version, which may be recorded by its name or
        by its package's ARN; else empty.
        """
        found = self.last(subjects, ("approve", "reject"))
        return found.what if found is not None else ""

    def verify(self, heads: Iterable[str] = ()) -> list[str]:
        """The trail's violations, one sentence each. ``heads``: hashes that it must contain."""
        before, seen = _FIRST_HASH, set()
        strays = set(self._store.keys(PREFIX)) - set(self._keys())
        wrong = [f"{key[:100]} is no entry of the trail." for key in sorted(strays)]
        for position, key in enumerate(self._keys(), 1):
            data = self._store.get(key)
            entry = _entry(data)
            if entry is None:
                wrong.append(f"The entry {key} cannot be read.")
                before = _hash(data)
                continue
            if key != _key(position) or entry.number != position:
                wrong.append(f"Entry {position} is missing: {key} stands in its place.")
                position = entry.number
            if entry.before != before:
                wrong.append(
                    f"Entry {entry.number} does not follow from the one before it: "
                    "one of them was changed."
                )
            before = _hash(data)
            seen.add(before)
        return wrong + [
            f"The entry with the hash {head[:12]}, which MLflow remembers, is not in the trail: "
            "it was changed or cut off."
            for head in heads
            if head not in seen
        ]

    def _keys(self) -> list[str]:
        """The keys of entries, in their order. Others are somebody else's."""
        return sorted(filter(_NAME.fullmatch, self._store.keys(PREFIX)), key=_number)


class S3Entries:
    """:class:`EntryStore` in an S3 bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._client = s3
        self._bucket = bucket

    def keys(self, prefix: str) -> list[str]:
        """All keys with a prefix, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        """An object."""
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return data

    def put_new(self, key: str, data: bytes) -> bool:
        """``If-None-Match: *`` makes S3 refuse the second of two concurrent writers."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _TAKEN:
                return False
            raise
        return True


def _key(number: int) -> str:
    return f"{PREFIX}{number:08d}.json"


def _number(key: str) -> int:
    return int(key.removeprefix(PREFIX).removesuffix(".json"))


def _entry(data: bytes) -> AuditEntry | None:
    """None for what is no entry, whatever somebody has put into its place."""
    try:
        found: AuditEntry = parse_json(data, AuditEntry, "The entry")
    except ProtocolError:
        return None
    return found


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
