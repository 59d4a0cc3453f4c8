"""Commands, replies and heartbeats: versioned JSON with strict decoding.

A device's message crosses IoT Core in an envelope. The IoT rule stores its ``body`` without
reading it, and takes the sender from the topic. Limits: 4 KB over Greengrass IPC, 128 KB over
IoT Core.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.names import KIND_PATTERN, MODEL_VERSION_PATTERN, Digest, Name
from edge.protocol.text import parse_json

VERSION: Literal[1] = 1
ORDER_VERSION: Literal[2] = 2
"""Of commands and claims. Version 1 was signed for a whole phase, and is refused."""
COMMAND_LIMIT = 4096
"""Bytes of a command or reply. Greengrass nucleus-lite drops larger inbound messages silently."""
CLAIMED_LIMIT = 2**20
"""Bytes of a command that came by claim check."""
CONTENT_LIMIT = 16 * 2**20
"""Bytes of a record skeleton that came by claim check."""
SERVED_INPUTS = 16
"""Inputs of a model whose statistics a heartbeat carries."""

LACKS_LIMIT = 3
"""Apps, and modules of each, that a heartbeat names as missing."""

Label = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,40}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=16 * 2**30)]
ConfigValue = bool | int | float | str
"""A value of an app's configuration, as TOML and Flower know them."""
Goal = Literal["minimize", "maximize"]
"""Whether a lower or a higher value of a metric is better."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=7 * 86_400)]
"""At most a week, as long as a presigned URL can be valid."""
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Flower keeps its ids in signed 64-bit integers."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Unix time in milliseconds, by the clock of whoever signed the message."""
Address = Annotated[str, msgspec.Meta(max_length=8192)]
"""A presigned URL: a session token alone can take 2 KB."""
Phase = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,120}\Z")]
"""From :func:`fl_runtime.run.keys.phase_id`."""
MessageId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,300}\Z")]
ReplyKey = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.#-]{1,300}\Z")]
"""From :func:`fl_runtime.run.keys.reply_key`."""
Kind = Annotated[str, msgspec.Meta(pattern=rf"^{KIND_PATTERN}\Z")]
Content = Annotated[str, msgspec.Meta(max_length=CLAIMED_LIMIT)]
"""A record skeleton."""
Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]


class ObjectRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A claim check: an object's SHA-256, its size in bytes and, for a device, a presigned URL."""

    digest: Digest
    size: Size
    url: Address = ""


class Command(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="command",
):
    """Ask a device to run its ``ClientApp`` once.

    ``seconds`` is counted from receipt, so that a device's wrong clock does no harm. ``content``
    is the record skeleton (see records.py) when it is small, else ``content_ref`` names it.
    """

    v: Literal[2] = ORDER_VERSION
    device: Name
    issued: Moment
    """When it was signed. A command that is sent again is signed again."""
    run: Name
    phase: Phase
    server_round: Int64
    kind: Kind
    message_id: MessageId
    reply_key: ReplyKey
    app: Digest
    seconds: Seconds
    flower_run_id: Int64
    node_id: Int64
    content: Content = ""
    content_ref: ObjectRef | None = None
    arrays: ObjectRef | None = None
    upload_url: Address
    run_config: Content = "{}"
    group_id: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Flower's label of the messages that belong together; a strategy or workflow may set it."""

    def __post_init__(self) -> None:
        """Refuse a record skeleton that no device could read into memory."""
        if self.content_ref is not None and self.content_ref.size > CONTENT_LIMIT:
            raise ValueError(f"a record skeleton has at most {CONTENT_LIMIT} bytes")


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="claim"):
    """Stands for a command that is too long for its transport: ``command`` is the object."""

    v: Literal[2] = ORDER_VERSION
    device: Name
    issued: Moment
    message_id: MessageId
    command: ObjectRef
    seconds: Seconds

    def __post_init__(self) -> None:
        """Refuse what no command can be: it would be read into memory."""
        if self.command.size > CLAIMED_LIMIT:
            raise ValueError(f"a command has at most {CLAIMED_LIMIT} bytes")


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds by the device's monotonic clock for download, app and upload."""

    fetch: Seconds = 0.0
    work: Seconds = 0.0
    upload: Seconds = 0.0


class Reply(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A device's answer to one command. A small answer without arrays travels in ``content``."""

    v: Literal[1] = VERSION
    run: Name
    phase: Phase
    message_id: MessageId
    status: Literal["ok", "error"]
    code: Annotated[str, msgspec.Meta(max_length=40)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    content: Content = ""
    update: ObjectRef | None = None
    timing: Timing = Timing()
    bytes_down: Size = 0


class Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Count, mean and standard deviation of a series of numbers."""

    count: Count = 0
    mean: Finite = 0.0
    std: Annotated[float, msgspec.Meta(ge=0, le=1e30)] = 0.0


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Statistics of one input of a model, or of its residuals."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[\w .:/%()\[\]-]{1,40}\Z")]
    """Other characters are replaced by underscores: names are shown on terminals and web pages."""
    first: Moments = Moments()
    """The first values after the model was installed."""
    recent: Moments = Moments()
    """The latest values."""


class Serving(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Statistics of a device's predictions. No single input ever leaves the device."""

    predictions: Count = 0
    errors: Count = 0
    """Requests that the app could not answer."""
    inputs: Annotated[list[Served], msgspec.Meta(max_length=SERVED_INPUTS)] = []
    residuals: Served | None = None
    """Prediction minus truth, for the predictions whose true value became known."""


class Heartbeat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A device's state, sent every few seconds. ``offline`` is its MQTT last will."""

    v: Literal[1] = VERSION
    state: Literal["idle", "busy", "offline"]
    boot: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{0,40}\Z")] = ""
    apps: Annotated[list[Digest], msgspec.Meta(max_length=50)] = []
    model: Annotated[str, msgspec.Meta(pattern=rf"^({MODEL_VERSION_PATTERN})?\Z")] = ""
    power: Literal["", "mains", "battery"] = ""
    """Empty when the device does not know."""
    free_memory: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    """MiB that a training process could use."""
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=10)] = {}
    """Labels of the device's configuration: site, model, shift."""
    since: Annotated[float, msgspec.Meta(ge=0, le=4e9)] = 0.0
    """Unix time at which ``model`` was installed, by the device's clock; 0 without a model."""
    serving: Serving | None = None
    orders: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """:data:`ORDER_VERSION` of the agent. Those of 0.4 do not tell theirs, which is 1."""
    lacks: Annotated[
        dict[Digest, Annotated[list[Label], msgspec.Meta(max_length=LACKS_LIMIT)]],
        msgspec.Meta(max_length=LACKS_LIMIT),
    ] = {}
    """Modules that installed apps import and the device does not have, by app."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON that an IoT rule reads: ``key`` (replies only) and the opaque ``body``."""

    body: Annotated[str, msgspec.Meta(max_length=COMMAND_LIMIT * 3)]
    key: Annotated[str, msgspec.Meta(max_length=300)] = ""


_T = TypeVar("_T")


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message as JSON. Raises ProtocolError above :data:`COMMAND_LIMIT` bytes."""
    data = msgspec.json.encode(message)
    if len(data) > COMMAND_LIMIT:
        raise ProtocolError(
            "too-long",
            f"{type(message).__name__} takes {len(data)} bytes; the limit is {COMMAND_LIMIT}.",
        )
    return data


# The limit is twice the sender's: JSON may be written with more white space or escapes.
def decode(data: bytes | str, kind: type[_T], limit: int = COMMAND_LIMIT * 2) -> _T:
    """Parse and check a message. Raises ProtocolError, which says what was wrong."""
    if len(data) > limit:
        raise ProtocolError("too-long", f"A message of {len(data)} bytes exceeds the limit.")
    parsed: _T = parse_json(data, kind, "The message")
    return parsed


def decode_order(data: bytes) -> Command | Claim:
    """Decode an order, whose signature :mod:`edge.protocol.orders` checks. Raises ProtocolError."""
    return decode(data, Command | Claim)  # type: ignore[arg-type]  # msgspec takes a union


def decode_heartbeat(body: bytes | str) -> Heartbeat:
    """Decode a stored heartbeat: the ``body`` of its envelope. Raises ProtocolError."""
    return decode(body, Heartbeat)


def seal(message: Reply | Heartbeat, key: str = "") -> bytes:
    """Put a device's message into the envelope that the IoT rules expect.

    Raises:
        ProtocolError: The message is longer than :data:`COMMAND_LIMIT`.

    """
    return msgspec.json.encode(Envelope(body=encode(message).decode(), key=key))


def seal_heartbeat(heartbeat: Heartbeat) -> bytes:
    """Seal a heartbeat; without statistics and missing modules when it would be too long."""
    try:
        return seal(heartbeat)
    except ProtocolError:
        return seal(msgspec.structs.replace(heartbeat, serving=None, lacks={}))


def unseal(payload: bytes, kind: type[_T]) -> _T:
    """Open an envelope and decode its body. Raises ProtocolError."""
    return decode(decode(payload, Envelope, COMMAND_LIMIT * 3).body, kind)
