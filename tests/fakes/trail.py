"""The audit trail's objects in memory."""

from __future__ import annotations


class MemoryEntries:
    """Objects that are written once, in a dictionary. ``rival``: what another writer puts first."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.rival: list[bytes] = []

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        return self.data[key]

    def put_new(self, key: str, data: bytes) -> bool:
        if self.rival:
            self.data.setdefault(key, self.rival.pop())
        if key in self.data:
            return False
        self.data[key] = data
        return True
