"""The highest manifest that a device has followed, in a file of its own.

``active.json`` has its number as well. The two are written one after the other, so that a power
cut or a damaged disk leaves at least one of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from edge.files import write_atomically
from edge.protocol.signed import Manifest, manifest_text
from edge.typed import from_json


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that was followed."""

    sequence: int = 0
    """Its number; 0 for none yet."""
    manifest: str = ""
    """Digest of what it says. Its job may come twice: the same manifest is followed again."""
    issued: float = 0.0
    """When it was signed, in Unix seconds: time has gone on since."""
    expires: bool = False
    """Whether it expired. After such a one, none that is good for ever is accepted."""


class FollowedFile:
    """The file, in a device's models folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "followed.json"

    def read(self) -> Followed | None:
        """Return the highest manifest; None when the file is there and damaged."""
        try:
            return from_json(self._file.read_bytes(), type=Followed)
        except FileNotFoundError:
            return Followed()
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def keep(self, followed: Followed) -> None:
        """Write the highest manifest, durably. Raises OSError."""
        write_atomically(self._file, msgspec.json.encode(followed), durable=True)


def followed_by(manifest: Manifest) -> Followed:
    """Return a manifest as it is remembered."""
    return Followed(
        sequence=manifest.sequence,
        manifest=identity(manifest),
        issued=manifest.issued,
        expires=manifest.expires > 0,
    )


def identity(manifest: Manifest) -> str:
    """Return a digest of what a manifest says; signed anew, it says the same."""
    plain = msgspec.structs.replace(manifest, issued=0.0, expires=0.0)
    return hashlib.sha256(manifest_text(plain)).hexdigest()
