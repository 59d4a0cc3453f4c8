"""The model a device runs: taken into use by a signed manifest only, after a test on the device's
own data, in one step.

What is active, and what was before, lies in ``models/active.json``; weights lie beside it by
digest.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge.identity.trust import Trust
from edge.object_transfer import ObjectError, Objects, disk_code
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.signed import Manifest, SignedManifest, parse_manifest

FETCH_SECONDS = 300.0
KEPT = 3
"""Models kept on the device: the active one, the one before, and one more. A way back needs no
download.
"""

Test = Callable[[Manifest, Path], Awaitable[float]]
"""A model's metric on the device's own data; raises ModelRefused."""


class ModelRefused(Exception):
    """A model that this device does not take; ``code`` is one of the reasons that devices give."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """What is in use. ``sequence`` outlives removals: no older manifest counts any more."""

    manifest: Manifest | None
    sequence: int
    metric: float | None = None
    signed: SignedManifest | None = None
    """The manifest as it came: whoever predicts checks the signature again."""
    since: float = 0.0
    """When it was taken into use, by the device's clock."""


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a manifest: for the job's details, so all of it short text."""

    state: Literal["active", "removed"]
    model_version: str
    new: float | None = None
    old: float | None = None


class ModelStore:
    """Takes models into use."""

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

    def active(self) -> Active:
        """What is in use."""
        return read_active(self._folder)

    async def install(self, signed: SignedManifest, test: Test) -> Installed:
        """Check, fetch, test, switch. Raises ModelRefused, and then the model in use stays.

        The switch is one rename: a power cut leaves the old model or the new one.
        """
        manifest, before = self._checked(signed), self.active()
        if manifest.remove:
            self._point(Active(manifest=None, sequence=manifest.sequence))
            return Installed(state="removed", model_version=manifest.model_version)
        try:
            weights = await self._weights(manifest, signed.url)
        except ObjectError as error:
            raise ModelRefused(error.code, str(error)) from error
        except OSError as error:
            raise ModelRefused(disk_code(error), str(error)) from error
        new, old = (
            (None, None)
            if manifest.forced
            else await self._compare(manifest, weights, before.manifest, test)
        )
        self._point(
            Active(
                manifest=manifest,
                sequence=manifest.sequence,
                metric=new,
                signed=signed,
                since=self._now(),
            )
        )
        self._forget(before.manifest)
        return Installed(state="active", model_version=manifest.model_version, new=new, old=old)

    def _checked(self, signed: SignedManifest) -> Manifest:
        try:
            self._trust.check("models", signed.manifest.encode(), signed.signature)
            manifest = parse_manifest(signed.manifest)
        except ProtocolError as error:
            raise ModelRefused(error.code, str(error)) from error
        if manifest.fleet != self._fleet:
            raise ModelRefused("foreign", f"The manifest is for the fleet {manifest.fleet}.")
        if manifest.sequence < self.active().sequence or (
            manifest.sequence == self.active().sequence and manifest != self.active().manifest
        ):
            raise ModelRefused(
                "outdated",
                f"The manifest's number is {manifest.sequence}, and this device has followed {self.active().sequence}.",
            )
        return manifest

    async def _weights(self, manifest: Manifest, url: str) -> Path:
        target = self._folder / manifest.digest
        if not (target.is_file() and target.stat().st_size == manifest.size):
            source, _ = await self._objects.fetch(
                ObjectRef(manifest.digest, manifest.size, url), FETCH_SECONDS
            )
            part = target.with_suffix(".part")
            shutil.copyfile(source, part)
            part.replace(target)
        return target

    async def _compare(
        self, manifest: Manifest, weights: Path, before: Manifest | None, test: Test
    ) -> tuple[float, float | None]:
        """The new model and the old one on the same data, now. Raises ModelRefused when the new one
        is worse by more than it may be.
        """
        new = await test(manifest, weights)
        if not math.isfinite(new):
            raise ModelRefused(
                "not-finite", f"The model's {manifest.metric} on this device is {new}."
            )
        if (
            before is None
            or before.app != manifest.app
            or not (self._folder / before.digest).is_file()
        ):
            return new, None
        old = await test(manifest, self._folder / before.digest)
        margin = manifest.tolerance * abs(old)
        worse = new < old - margin if manifest.goal == "maximize" else new > old + margin
        if worse:
            raise ModelRefused(
                "worse",
                f"On this device {manifest.metric} is {new:.4g} with the new model and {old:.4g} with the one in use.",
            )
        return new, old

    def _point(self, active: Active) -> None:
        pointer = self._folder / "active.json.part"
        pointer.write_bytes(msgspec.json.encode(active))
        pointer.replace(self._folder / "active.json")

    def _forget(self, before: Manifest | None) -> None:
        """Keep the active model, the one before, and the newest others."""
        active = self.active().manifest
        wanted = {manifest.digest for manifest in (active, before) if manifest is not None}
        others = [
            file
            for file in self._folder.iterdir()
            if len(file.name) == 64 and file.name not in wanted
        ]
        for file in sorted(others, key=lambda f: f.stat().st_mtime, reverse=True)[
            max(0, KEPT - len(wanted)) :
        ]:
            file.unlink(missing_ok=True)


def read_active(folder: Path) -> Active:
    """What is in use; nothing, on a new device or where the file is damaged."""
    try:
        return msgspec.json.decode((folder / "active.json").read_bytes(), type=Active)
    except (OSError, msgspec.DecodeError):
        return Active(manifest=None, sequence=0)


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """The metric a model is tested by; raises ModelRefused when the app does not report it."""
    value = metrics.get(name)
    if not isinstance(value, int | float):
        raise ModelRefused(
            "metrics",
            f"The app reports no {name!r} on this device; it reports {', '.join(sorted(metrics)) or 'nothing'}."[
                :300
            ],
        )
    return float(value)
