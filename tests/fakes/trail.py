"""The audit trail's objects in memory."""

from __future__ import annotations

from registry.audit import Exists


class MemoryTrail:
    """Objects that are written once, in a dictionary. ``rival``: what another writer puts first."""

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
