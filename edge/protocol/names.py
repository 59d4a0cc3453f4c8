"""Names, MQTT topics and S3 object keys. Identity comes from here, never from a payload.

AWS IoT Core allows at most seven slashes and 256 bytes in a topic
(https://docs.aws.amazon.com/general/latest/gr/iot-core.html); these topics use three.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from edge.protocol.errors import ProtocolError

Channel = Literal["heartbeat", "command", "reply"]

# No dot, slash, plus, hash or space: a name is safe as a topic level, an S3 key part and a file
# name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z_]{1,20}(\.[A-Za-z_][A-Za-z0-9_]{0,40})?")


class Address(NamedTuple):
    """Where a message came from or goes to, as its topic says."""

    fleet: str
    device: str
    channel: Channel


def check_name(what: str, value: str) -> str:
    """Return ``value`` if it is a legal fleet, device, run or cohort name, else raise
    ProtocolError.
    """
    if not _NAME.fullmatch(value):
        raise ProtocolError(
            "bad-name",
            f"{what} {value[:80]!r} is not a legal name: use 1 to 63 letters, digits, '-' or '_', starting with a letter or digit.",
        )
    return value


def check_digest(value: str) -> str:
    """Return ``value`` if it is a lower-case hexadecimal SHA-256, else raise ProtocolError."""
    if not _DIGEST.fullmatch(value):
        raise ProtocolError(
            "bad-digest", f"{value[:80]!r} is not a SHA-256 digest in lower-case hexadecimal."
        )
    return value


def is_digest(value: str) -> bool:
    """Whether ``value`` is a lower-case hexadecimal SHA-256."""
    return _DIGEST.fullmatch(value) is not None


def check_kind(value: str) -> str:
    """Return ``value`` if it is a Flower message type such as ``train`` or ``train.baseline``."""
    if not _KIND.fullmatch(value):
        raise ProtocolError("bad-kind", f"{value[:80]!r} is not a Flower message type.")
    return value


def topic(fleet: str, device: str, channel: Channel) -> str:
    """``fl/{fleet}/{device}/{channel}``, the only topics a device may use."""
    return f"fl/{check_name('fleet', fleet)}/{check_name('device', device)}/{channel}"


def parse_topic(text: str) -> Address:
    """The inverse of :func:`topic`; raises ProtocolError for anything else."""
    parts = text.split("/")
    if len(parts) != 4 or parts[0] != "fl" or parts[3] not in get_args(Channel):
        raise ProtocolError("bad-topic", f"{text[:120]!r} is not a topic of this system.")
    return Address(check_name("fleet", parts[1]), check_name("device", parts[2]), parts[3])  # type: ignore[arg-type]  # checked above
