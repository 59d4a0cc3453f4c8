"""The models of a device. A model is installed by a signed manifest, after a test on local data.

``models/active.json`` says which model is in use; weights lie beside it, named by digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge.errors import CodedError
from edge.files import disk_code, make_folder, open_atomically, remove_parts, write_atomically
from edge.identity.trust import Trust
from edge.object_transfer import ObjectError, Objects
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.names import is_digest
from edge.protocol.signed import Manifest, SignedManifest, parse_manifest
from edge.serving.followed import Followed, FollowedFile, followed_by, identity
from edge.serving.weights import WeightFiles
from edge.typed import from_json

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
        now: Unix time by the device's clock, which may be wrong: nothing is decided by it.
        passed: A Unix time that has surely passed, by the cloud's clock.

    """

    def __init__(
        self,
        folder: Path,
        objects: Objects,
        trust: Trust,
        fleet: str,
        now: Callable[[], float] = time.time,
        passed: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._folder = folder
        self._objects = objects
        self._trust = trust
        self._fleet = fleet
        self._now = now
        self._passed = passed
        self._weight_files = WeightFiles()
        make_folder(folder)
        remove_parts(folder)
        self._followed = FollowedFile(folder)
        with contextlib.suppress(OSError, ModelRefused):  # read again when a manifest comes
            self._followed.keep(self._highest())  # of a device that had only active.json

    def active(self) -> Active:
        """Return the model in use, as it was installed."""
        return read_active(self._folder)

    def is_known(self) -> bool:
        """Whether :meth:`usable` answers at once: the weights did not change since it read them."""
        manifest = self.active().manifest
        return manifest is None or self._weight_files.are_known(self._folder / manifest.digest)

    def usable(self) -> Active:
        """Return the model in use; none when its weights are missing or damaged."""
        active = self.active()
        if active.manifest is None:
            return active
        if self._weight_files.are_whole(self._folder / active.manifest.digest):
            return active
        return Active(manifest=None, sequence=active.sequence)

    async def install(self, signed: SignedManifest, test: Test) -> Installed:
        """Verify, download, test and switch.

        The switch is one durable rename: a power cut leaves the old model or the new one.

        Raises:
            ModelRefused: The model in use stays.

        """
        manifest, before = self._verified(signed), self.active()
        if manifest.remove:
            self._switch(manifest, Active(manifest=None, sequence=manifest.sequence))
            return Installed(state="removed", model_version=manifest.model_version)
        weights = await self._weights(manifest, signed.url)
        new, old = None, None
        # A rollback goes back to a model that was in use, and must not fail on local data.
        if not manifest.forced:
            new, old = await self._compare(manifest, weights, before.manifest, test)
        self._switch(
            manifest,
            Active(
                manifest=manifest,
                sequence=manifest.sequence,
                metric=new,
                signed=signed,
                since=self._now(),
            ),
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
        highest = self._highest()
        # The same manifest may come twice: an IoT job is delivered at least once.
        repeated = identity(manifest) == highest.manifest
        if manifest.sequence <= highest.sequence and not repeated:
            raise ModelRefused(
                "outdated",
                f"The manifest's number is {manifest.sequence}, and this device has followed"
                f" {highest.sequence}.",
            )
        self._check_time(manifest, highest)
        return manifest

    def _check_time(self, manifest: Manifest, highest: Followed) -> None:
        """Refuse an expired manifest: an old one is not served for ever.

        The device's own clock is not asked, since a wrong one must not lock a device out.
        """
        if not manifest.expires:
            if highest.expires:
                raise ModelRefused("outdated", "The manifest has no time at which it expires.")
            return
        if manifest.expires < max(self._passed(), highest.issued):
            raise ModelRefused("outdated", "The manifest has expired; it must be signed anew.")

    def _highest(self) -> Followed:
        """Return the highest manifest that was followed, by whichever file says more.

        Raises:
            ModelRefused: Both files are damaged. No manifest can be told to be new.

        """
        kept, active = self._followed.read(), read_active(self._folder)
        if kept is None and active.sequence == 0:
            raise ModelRefused(
                "device-error",
                "The files that say which manifests this device has followed are damaged; an"
                f" operator must look at them and remove {self._folder / 'followed.json'}.",
            )
        if kept is not None and kept.sequence >= active.sequence:
            return kept
        if active.manifest is not None:
            return followed_by(active.manifest)
        return Followed(sequence=active.sequence)

    async def _weights(self, manifest: Manifest, url: str) -> Path:
        target = self._folder / manifest.digest
        if await asyncio.to_thread(self._weight_files.are_whole, target):
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
        if not await asyncio.to_thread(self._weight_files.are_whole, target):
            raise ModelRefused("bad-digest", "The disk gives back other weights than it was given.")
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
        if not self._weight_files.are_whole(self._folder / before.digest):
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

    def _switch(self, manifest: Manifest, active: Active) -> None:
        # First the number: whatever a power cut leaves of the rest, no older manifest gets in.
        self._followed.keep(followed_by(manifest))
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
        return from_json(active_file(folder).read_bytes(), type=Active)
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
