"""The model a device serves: what its shadow says is champion, fetched and switched atomically."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from edge.objects import Objects
from edge.protocol.messages import ObjectRef

FETCH_SECONDS = 300.0


class Champion(msgspec.Struct, frozen=True):
    """``state.desired.champion`` of a device's shadow."""

    version: str
    model: ObjectRef


class Desired(msgspec.Struct):
    """What a device's shadow wants of it."""

    champion: Champion | None = None
    certificate_after: float | None = None
    """Unix time: a certificate issued before it is to be renewed."""


class _Document(msgspec.Struct):
    """A shadow document: ``get/accepted`` has the desired state under ``desired``, a delta has it bare."""

    state: dict[str, Any] = {}


def parse_shadow(payload: bytes) -> Desired:
    """What a shadow document or delta asks for; raises msgspec.DecodeError."""
    state = msgspec.json.decode(payload, type=_Document).state
    return msgspec.convert(state.get("desired", state), Desired)


class ModelStore:
    """Keeps models by digest and says which one is active."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        self._folder = folder
        self._objects = objects
        folder.mkdir(parents=True, exist_ok=True)

    def active(self) -> Champion | None:
        """The model in use, or None on a new device."""
        file = self._folder / "active.json"
        return msgspec.json.decode(file.read_bytes(), type=Champion) if file.is_file() else None

    def active_file(self) -> Path | None:
        """The weights of the model in use."""
        champion = self.active()
        return self._folder / champion.model.digest if champion else None

    async def install(self, champion: Champion) -> None:
        """Fetch, check the digest, switch. The switch is one rename: a power cut leaves old or new."""
        source, _ = await self._objects.fetch(champion.model, FETCH_SECONDS)
        target = self._folder / champion.model.digest
        if not target.is_file():
            part = target.with_suffix(".part")
            shutil.copyfile(source, part)
            part.replace(target)
        pointer = self._folder / "active.json.part"
        pointer.write_bytes(msgspec.json.encode(Champion(champion.version, ObjectRef(champion.model.digest, champion.model.size))))
        pointer.replace(self._folder / "active.json")
