"""The models of a device. A model is installed by a signed manifest, after a test on local data.

``models/active.json`` says which model is in use; weights lie beside it, named by digest.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge.errors import CodedError
from edge.files import disk_code, open_atomically, remove_parts, write_atomically
from edge.identity.trust import Trust
from edge.object_transfer import ObjectError, Objects
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.names import is_digest
from edge.protocol.signed import Manifest, SignedManifest, parse_manifest

FETCH_SECONDS = 300.0
KEPT = 3
"""Models kept on the device: the active one, the one before, and one more. A rollback to one of
them needs no download.
"""
_REASON_LIMIT = 300

Test = Callable[[Manifest, Path], Awaitable[float]]
"""Measures a model's metric on the device's own data; raises ModelRefused."""


class ModelRefused(CodedError):
    """A model that this device does not install; ``code`` is a device's reason code."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """The model in use."""

    manifest: Manifest | None
    sequence: int
    """The last manifest's number. It outlives a removal, so that no older manifest is accepted."""
    metric: float | None = None
    signed: SignedManifest | None = None
    """The signed manifest: the predicting process verifies it again."""
    since: float = 0.0
    """Unix time of the installation, by the device's clock."""


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a manifest, short enough for an IoT job's status details."""

    state: Literal["active", "removed"]
    model_version: str
    new: float | None = None
    """The new model's metric, when it was tested."""
    old: float | None = None
    """The metric of the model in use before, when the two were compared."""


class ModelStore:
    """Installs models in one folder.

    Args:
        folder: The device's models.
        objects: Where weights are downloaded from.
        trust: Whose manifests are accepted.
        fleet: The only fleet whose manifests are accepted.
        now: Unix time.

    """

    def __init__(
        self,
        folder: Path,
        objects: Objects,
        trust: Trust,
        fleet: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._objects = objects
        self._trust = trust
        self._fleet = fleet
        self._now = now
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)

    def active(self) -> Active:
        """Return the model in use."""
        return read_active(self._folder)

    async def install(self, signed: SignedManifest, test: Test) -> Installed:
        """Verify, download, test and switch.

        The switch is one durable rename: a power cut leaves the old model or the new one.

        Raises:
            ModelRefused: The model in use stays.

        """
        manifest, before = self._verified(signed), self.active()
        if manifest.remove:
            self._switch(Active(manifest=None, sequence=manifest.sequence))
            return Installed(state="removed", model_version=manifest.model_version)
        weights = await self._weights(manifest, signed.url)
        new, old = None, None
        # A rollback goes back to a model that was in use, and must not fail on local data.
        if not manifest.forced:
            new, old = await self._compare(manifest, weights, before.manifest, test)
        self._switch(
            Active(
                manifest=manifest,
                sequence=manifest.sequence,
                metric=new,
                signed=signed,
                since=self._now(),
            )
        )
        self._evict(before.manifest)
        return Installed(state="active", model_version=manifest.model_version, new=new, old=old)

    def _verified(self, signed: SignedManifest) -> Manifest:
        try:
            self._trust.check("models", signed.manifest.encode(), signed.signature)
            manifest = parse_manifest(signed.manifest)
        except ProtocolError as error:
            raise ModelRefused(error.code, str(error)) from error
        if manifest.fleet != self._fleet:
            raise ModelRefused("foreign", f"The manifest is for the fleet {manifest.fleet}.")
        active = self.active()
        # The same manifest may come twice: an IoT job is delivered at least once.
        repeated = manifest.sequence == active.sequence and manifest == active.manifest
        if manifest.sequence <= active.sequence and not repeated:
            raise ModelRefused(
                "outdated",
                f"The manifest's number is {manifest.sequence}, and this device has followed"
                f" {active.sequence}.",
            )
        return manifest

    async def _weights(self, manifest: Manifest, url: str) -> Path:
        target = self._folder / manifest.digest
        if target.is_file() and target.stat().st_size == manifest.size:
            return target
        ref = ObjectRef(manifest.digest, manifest.size, url)
        # A copy: the cache belongs to training, whose next rounds evict what is in it.
        try:
            source, _ = await self._objects.fetch(ref, FETCH_SECONDS)
            with source.open("rb") as cached, open_atomically(target, durable=True) as file:
                shutil.copyfileobj(cached, file)
        except ObjectError as error:
            raise ModelRefused(error.code, str(error)) from error
        except OSError as error:
            raise ModelRefused(disk_code(error), str(error)) from error
        return target

    async def _compare(
        self, manifest: Manifest, weights: Path, before: Manifest | None, test: Test
    ) -> tuple[float, float | None]:
        """Return the metric of the new model and of the old one, on the same data.

        Raises:
            ModelRefused: The new model is worse by more than the manifest's tolerance.

        """
        new = await test(manifest, weights)
        if not math.isfinite(new):
            raise ModelRefused(
                "not-finite", f"The model's {manifest.metric} on this device is {new}."
            )
        if before is None or before.app != manifest.app:
            return new, None  # another app's metric says nothing about this one's
        if not (self._folder / before.digest).is_file():
            return new, None
        old = await test(manifest, self._folder / before.digest)
        margin = manifest.tolerance * abs(old)
        worse = new < old - margin if manifest.goal == "maximize" else new > old + margin
        if worse:
            raise ModelRefused(
                "worse",
                f"On this device {manifest.metric} is {new:.4g} with the new model and {old:.4g}"
                " with the one in use.",
            )
        return new, old

    def _switch(self, active: Active) -> None:
        write_atomically(active_file(self._folder), msgspec.json.encode(active), durable=True)

    def _evict(self, before: Manifest | None) -> None:
        """Keep the active model, the one before, and the newest others."""
        active = self.active().manifest
        wanted = {manifest.digest for manifest in (active, before) if manifest is not None}
        others = [
            file
            for file in self._folder.iterdir()
            if is_digest(file.name) and file.name not in wanted
        ]
        others.sort(key=lambda f: f.stat().st_mtime, reverse=True)
        for file in others[max(0, KEPT - len(wanted)) :]:
            file.unlink(missing_ok=True)


def active_file(folder: Path) -> Path:
    """Return the file that says which model is in use."""
    return folder / "active.json"


def read_active(folder: Path) -> Active:
    """Return the model in use: none on a new device, or when the file is damaged."""
    try:
        return msgspec.json.decode(active_file(folder).read_bytes(), type=Active)
    except (OSError, ValueError):
        return Active(manifest=None, sequence=0)


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """Return the metric that a model is tested by. Raises ModelRefused when there is none."""
    value = metrics.get(name)
    if not isinstance(value, int | float):
        reported = ", ".join(sorted(metrics)) or "nothing"
        raise ModelRefused(
            "metrics",
            f"The app reports no {name!r} on this device; it reports {reported}."[:_REASON_LIMIT],
        )
    return float(value)
