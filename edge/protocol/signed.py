"""The manifest that installs a model, as it is signed.

Signatures are ECDSA over P-256 with SHA-256, DER in base64, as AWS KMS makes them
(https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.protocol.messages import Goal, Size
from edge.protocol.names import Digest, ModelVersion, Name
from edge.protocol.text import parse_json


class Manifest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Tells a device which model to use."""

    v: Literal[1] = 1
    fleet: Name
    model_version: ModelVersion
    digest: Digest
    """SHA-256 of the weights (safetensors)."""
    size: Size
    app: Digest
    """The app whose ClientApp tests the model and whose predict function serves it."""
    metric: Annotated[str, msgspec.Meta(max_length=250)]
    goal: Goal
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1e30)]
    """How much worse the new model may be on the device's own data, as a share of the metric of
    the model in use.
    """
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    """Grows with each manifest of a fleet, so that an old manifest cannot be replayed."""
    forced: bool = False
    """Rollback: the device switches without comparing the models."""
    remove: bool = False
    """Rollback to no model: the device removes the model in use."""
    issued: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0
    """When it was signed, in Unix seconds; 0 in manifests of releases that did not say it."""
    expires: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0
    """Until when a device may begin to follow it; 0 for ever."""


class SignedManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The document of an IoT job.

    ``manifest`` is the signed text itself, so that no JSON encoder has to reproduce its bytes.
    """

    operation: Literal["install-model"] = "install-model"
    manifest: Annotated[str, msgspec.Meta(max_length=2000)]
    signature: Annotated[str, msgspec.Meta(max_length=200)]
    url: Annotated[str, msgspec.Meta(max_length=4000)]


_TIMES = ("issued", "expires")


def manifest_text(manifest: Manifest) -> bytes:
    """Return the bytes that are signed of a manifest.

    Times that it does not have are left out: agents of 0.4 refuse fields that they do not know.
    """
    # omit_defaults leaves out the very object that is the default, not each equal float.
    fields = msgspec.to_builtins(manifest)
    known = {name: value for name, value in fields.items() if value or name not in _TIMES}
    return msgspec.json.encode(known)


def parse_manifest(text: str) -> Manifest:
    """Parse a manifest whose signature has been checked. Raises ProtocolError."""
    return parse_json(text, Manifest, "The manifest")
