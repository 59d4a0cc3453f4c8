"""Commands, replies and heartbeats: versioned JSON, strict in what they accept.

A device's message crosses IoT Core as an envelope whose ``body`` the IoT rule stores unread;
who sent it is taken from the topic. Limits: 4 KB over Greengrass IPC, 128 KB over IoT Core.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from edge.protocol.errors import ProtocolError

VERSION: Literal[1] = 1
COMMAND_LIMIT = 4096
"""Bytes of a command or reply. Greengrass nucleus-lite drops larger inbound messages silently."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
Label = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,40}$")]
Size = Annotated[int, msgspec.Meta(ge=0, le=16 * 2**30)]
ConfigValue = bool | int | float | str
"""A value of an app's configuration, as TOML and Flower know them."""
Goal = Literal["minimize", "maximize"]
"""Whether less or more of a metric is better."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class ObjectRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A claim check: an object's SHA-256, its size in bytes and, for a device, a presigned URL."""

    digest: Digest
    size: Size
    url: str = ""


class Command(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="command",
):
    """Ask a device to run its ``ClientApp`` once.

    ``seconds`` is the time the device has, counted from receipt, so a wrong clock does no harm.
    ``content`` is the record skeleton (see records.py) when it is small, else ``content_ref`` names
    it.
    """

    v: Literal[1] = VERSION
    run: Name
    phase: str
    server_round: int
    kind: str
    message_id: str
    reply_key: str
    app: Digest
    seconds: Seconds
    flower_run_id: int
    node_id: int
    content: str = ""
    content_ref: ObjectRef | None = None
    arrays: ObjectRef | None = None
    upload_url: str
    run_config: str = "{}"
    signature: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """By the server's key, over what :func:`edge.protocol.signed.command_text` says."""


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="claim"):
    """A command too long for its transport: fetch ``command`` and act on what it holds."""

    command: ObjectRef
    seconds: Seconds


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds on the device's monotonic clock: download, app, upload."""

    fetch: Seconds = 0.0
    work: Seconds = 0.0
    upload: Seconds = 0.0


class Reply(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A device's answer to one command. A small answer without arrays travels in ``content``."""

    v: Literal[1] = VERSION
    run: Name
    phase: str
    message_id: str
    status: Literal["ok", "error"]
    code: Annotated[str, msgspec.Meta(max_length=40)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    content: str = ""
    update: ObjectRef | None = None
    timing: Timing = Timing()
    bytes_down: Size = 0


Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
SERVED_INPUTS = 16
"""Inputs of a model whose statistics a heartbeat carries."""


class Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Numbers that were seen: how many, their mean, their standard deviation."""

    count: Annotated[int, msgspec.Meta(ge=0)] = 0
    mean: Finite = 0.0
    std: Annotated[float, msgspec.Meta(ge=0, le=1e30)] = 0.0


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One input of the model, or its residuals: as the device met them when the model was new, and
    lately.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[\w .:/%()\[\]-]{1,40}$")]
    """What else an app calls its inputs stands as an underscore: people read it on terminals and
    pages.
    """
    first: Moments = Moments()
    recent: Moments = Moments()


class Serving(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """What a device says of the predictions that its model has made. No input itself leaves the
    device.
    """

    predictions: Annotated[int, msgspec.Meta(ge=0)] = 0
    errors: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Requests that the app could not answer."""
    inputs: Annotated[list[Served], msgspec.Meta(max_length=SERVED_INPUTS)] = []
    residuals: Served | None = None
    """Prediction minus truth, where somebody has told the truth."""


class Heartbeat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """What a device says of itself every few seconds; ``offline`` is its last will."""

    v: Literal[1] = VERSION
    state: Literal["idle", "busy", "offline"]
    boot: Annotated[str, msgspec.Meta(max_length=40)] = ""
    apps: Annotated[list[Digest], msgspec.Meta(max_length=50)] = []
    model: Annotated[str, msgspec.Meta(max_length=80)] = ""
    power: Literal["", "mains", "battery"] = ""
    """Empty: the device cannot tell."""
    free_memory: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    """MiB that a training process could have."""
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=10)] = {}
    """What the device's configuration says of it: site, model, shift."""
    since: Annotated[float, msgspec.Meta(ge=0, le=4e9)] = 0.0
    """When ``model`` was taken into use, by the device's clock; 0: it runs none."""
    serving: Serving | None = None


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The outer JSON that an IoT rule reads: ``key`` (replies only) and the opaque ``body``."""

    body: str
    key: str = ""


T = TypeVar("T")

CLAIMED_LIMIT = 2**20
"""Bytes of a command that came by claim check."""


def encode(message: msgspec.Struct) -> bytes:
    """JSON of a message; raises ProtocolError above :data:`COMMAND_LIMIT` bytes."""
    data = msgspec.json.encode(message)
    if len(data) > COMMAND_LIMIT:
        raise ProtocolError(
            "too-long",
            f"{type(message).__name__} takes {len(data)} bytes; at most {COMMAND_LIMIT} may cross the wire.",
        )
    return data


def decode(data: bytes | str, kind: type[T], limit: int = COMMAND_LIMIT * 2) -> T:
    """Parse and check a message; raises ProtocolError that says what was wrong."""
    if len(data) > limit:
        raise ProtocolError("too-long", f"A message of {len(data)} bytes exceeds the limit.")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("malformed", f"The message is malformed: {error}") from error


def decode_order(data: bytes) -> Command | Claim:
    """What came on the command topic; raises ProtocolError."""
    return decode(data, Command | Claim)  # type: ignore[arg-type]  # msgspec takes a union


def seal(message: Reply | Heartbeat, key: str = "") -> bytes:
    """Wrap a device's message in the envelope that the IoT rule expects."""
    return msgspec.json.encode(Envelope(body=encode(message).decode(), key=key))
