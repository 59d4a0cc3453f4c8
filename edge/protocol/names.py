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


def reply_key(run: str, phase: str, cohort: str) -> str:
    """Partition key of the ``replies`` table: all answers of one cohort in one phase."""
    return f"{run}#{phase}#{cohort}"


def run_prefix(run: str) -> str:
    """What is kept of a run: its specification, its rounds, its model."""
    return f"runs/{check_name('run', run)}/"


def transient_prefix(run: str) -> str:
    """What a run needs only while it lasts: the bucket's lifecycle rule deletes all below
    ``transient/`` after a month.
    """
    return f"transient/{check_name('run', run)}/"


def arrays_key(run: str, digest: str) -> str:
    """Global weights: one object per digest, shared by all devices of a run."""
    return f"{transient_prefix(run)}arrays/{check_digest(digest)}.safetensors"


def content_key(run: str, digest: str) -> str:
    """Configs too large for a command message (claim check)."""
    return f"{transient_prefix(run)}content/{check_digest(digest)}.json"


def command_key(run: str, digest: str) -> str:
    """A command too large for its transport (claim check)."""
    return f"{transient_prefix(run)}commands/{check_digest(digest)}.json"


def update_key(run: str, phase: str, device: str) -> str:
    """One device's update in one phase. ``phase`` is what :func:`phase_id` gives."""
    return f"{transient_prefix(run)}updates/{phase}/{check_name('device', device)}.safetensors"


def phase_id(server_round: int, kind: str, sequence: int, content: str) -> str:
    """A phase's place in its run, sortable, and what was sent in it: ``00003-train-0007-0a1b2c3d``.

    ``content`` is the digest of what the devices get. A server that resumes a run names a phase as
    the
    one before it did exactly when it asks the same: answers given already count, and only those.
    """
    return f"{server_round:05d}-{check_kind(kind)}-{sequence:04d}-{check_digest(content)[:8]}"


def app_key(digest: str) -> str:
    """The bundle of a Flower app."""
    return f"apps/{check_digest(digest)}.zip"
