"""Names, digests and MQTT topics: as types for messages, and as checks.

A device's identity comes from its topic and certificate, never from a payload. AWS IoT Core
allows seven slashes and 256 bytes in a topic
(https://docs.aws.amazon.com/general/latest/gr/iot-core.html); these topics have three slashes.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from edge.protocol.errors import ProtocolError

# No dot, slash, plus, hash or space: a name is safe as a topic level, as part of an S3 key and as
# a file name.
_NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
DIGEST_PATTERN = "[0-9a-f]{64}"
MODEL_VERSION_PATTERN = "[A-Za-z0-9-]{1,60}/[0-9]{1,9}"
KIND_PATTERN = r"[a-z_]{1,20}(\.[A-Za-z_][A-Za-z0-9_]{0,40})?"

# \Z and not $, which would also match before a newline at the end.
Name = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
"""A fleet, device, run or cohort."""
Digest = Annotated[str, msgspec.Meta(pattern=rf"^{DIGEST_PATTERN}\Z")]
"""SHA-256 in lower-case hexadecimal."""
ModelVersion = Annotated[str, msgspec.Meta(pattern=rf"^{MODEL_VERSION_PATTERN}\Z")]
"""NAME/NUMBER of a version in the model registry."""
Channel = Literal["heartbeat", "command", "reply"]


def check_name(what: str, value: str) -> str:
    """Return ``value`` if it is a legal :data:`Name`, else raise ProtocolError."""
    if not is_name(value):
        raise ProtocolError(
            "bad-name",
            f"{what} {value[:80]!r} is not a legal name: use 1 to 63 letters, digits, '-' or '_',"
            " starting with a letter or digit.",
        )
    return value


def is_name(value: str) -> bool:
    """Whether ``value`` is a :data:`Name`."""
    return re.fullmatch(_NAME, value) is not None


def check_digest(value: str) -> str:
    """Return ``value`` if it is a :data:`Digest`, else raise ProtocolError."""
    if not is_digest(value):
        raise ProtocolError(
            "bad-digest", f"{value[:80]!r} is not a SHA-256 digest in lower-case hexadecimal."
        )
    return value


def is_digest(value: str) -> bool:
    """Whether ``value`` is a :data:`Digest`."""
    return re.fullmatch(DIGEST_PATTERN, value) is not None


def check_kind(value: str) -> str:
    """Return ``value`` if it is a Flower message type such as ``train`` or ``train.baseline``."""
    if not re.fullmatch(KIND_PATTERN, value):
        raise ProtocolError("bad-kind", f"{value[:80]!r} is not a Flower message type.")
    return value


def topic(fleet: str, device: str, channel: Channel) -> str:
    """Build ``fl/{fleet}/{device}/{channel}``. A device's policy allows no other topics."""
    return f"fl/{check_name('fleet', fleet)}/{check_name('device', device)}/{channel}"
