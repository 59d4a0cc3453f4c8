"""What is signed, as bytes: a server's commands of one phase, and the manifest that puts a model on
devices.

Signatures are ECDSA over P-256 with SHA-256, DER in base64, as AWS KMS makes them
(https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, Digest, Goal, Name, Size
from edge.protocol.records import digest

ModelVersion = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,60}/[0-9]{1,9}$")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The one document by which a device takes a model into use."""

    v: Literal[1] = 1
    fleet: Name
    model_version: ModelVersion
    digest: Digest
    """SHA-256 of the weights (safetensors)."""
    size: Size
    app: Digest
    """The app whose ClientApp tests the model and whose predict serves it."""
    metric: str
    goal: Goal
    tolerance: Annotated[float, msgspec.Meta(ge=0)]
    """How much worse than the model in use, as a share of its metric, the new one may be on the
    device's own data.
    """
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    """Grows with each manifest of a fleet: an old one cannot be played again."""
    forced: bool = False
    """A way back: the device switches without comparing."""
    remove: bool = False
    """A way back where there was no model before: the device takes its own out of use."""


class SignedManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job's document. ``manifest`` is the signed text itself: nobody has to write it the same way
    twice.
    """

    operation: Literal["install-model"] = "install-model"
    manifest: Annotated[str, msgspec.Meta(max_length=2000)]
    signature: Annotated[str, msgspec.Meta(max_length=200)]
    url: Annotated[str, msgspec.Meta(max_length=4000)]


def manifest_text(manifest: Manifest) -> bytes:
    """What is signed of a manifest."""
    return msgspec.json.encode(manifest)


def parse_manifest(text: str) -> Manifest:
    """Parse a manifest whose signature has been checked; raises ProtocolError."""
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("malformed", f"The manifest is malformed: {error}.") from error


def phase_text(
    *, run: str, phase: str, kind: str, app: str, arrays: str, content: str, run_config: str
) -> bytes:
    """What a server signs of a phase's commands: the run, the app, the weights and the settings by
    their digests.
    """
    parts = (
        "mledgeops-command-1",
        run,
        phase,
        kind,
        app,
        arrays,
        digest(content.encode()),
        digest(run_config.encode()),
    )
    return "\n".join(parts).encode()


def command_text(command: Command, content: str) -> bytes:
    """The same of a command that came; ``content`` as it was fetched, when the command only names
    it.
    """
    return phase_text(
        run=command.run,
        phase=command.phase,
        kind=command.kind,
        app=command.app,
        arrays=command.arrays.digest if command.arrays else "",
        content=content,
        run_config=command.run_config,
    )
