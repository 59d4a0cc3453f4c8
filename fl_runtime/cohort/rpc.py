"""The wire between server and proxies: gRPC, one bidirectional stream for each proxy, mutual TLS,
MessagePack messages in frames.

The proxy opens the stream, and its certificate says which cohort it serves; the server sends phase
requests and gets events back. A proxy that reconnects gets the pending request again: devices
answer a repeated command from memory, so nothing is trained twice. :mod:`fl_runtime.cohort.hub` is
the server's side, :mod:`fl_runtime.cohort.attach` the proxy's.

A request with many devices is above gRPC's limit of 4 MiB, and without a limit a proxy could fill
the server's memory with one message. So a message travels in frames below the limit, and the server
stops reading one that is longer than any of a proxy's. A frame's first byte is 1 when more follow.
A folded model travels in messages of 1 MiB, and neither side ever holds all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from edge.errors import MLEdgeOpsError
from edge.protocol.text import printable
from edge.typed import convert, from_msgpack
from fl_runtime.run.messages import DeviceResult, Folded, FoldedPart, PhaseDone, PhaseRequest

METHOD = "/mledgeops.Cohorts/Attach"
CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
]
"""A phase may pass for minutes without data, so both sides ping:
https://grpc.io/docs/guides/keepalive/. Who connects and says nothing is gone after the handshake's
time.
"""
FRAME_BYTES = 2**20
CODE_CHARACTERS = 40
"""Of a reason code, as in a device's reply."""
_LAST, _MORE = b"\x00", b"\x01"


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The server's last message: the run is over, or a newer proxy serves the cohort. The proxy
    may end.
    """


class StreamRefused(MLEdgeOpsError):
    """What comes is no message, or a longer one than its receiver accepts."""

    exit_code = 1
    code = "stream-refused"


FromProxy = DeviceResult | FoldedPart | Folded | PhaseDone
FromServer = PhaseRequest | Goodbye


def frames(message: FromProxy | FromServer) -> Iterator[bytes]:
    """Encode a message as frames."""
    view = memoryview(msgspec.msgpack.encode(message))
    while len(view) > FRAME_BYTES:
        yield _MORE + view[:FRAME_BYTES]
        view = view[FRAME_BYTES:]
    yield _LAST + view


def messages(received: Iterable[bytes], limit: int | None = None) -> Iterator[bytes]:
    """Join the frames of each message, which may have ``limit`` bytes. Raises StreamRefused."""
    parts: list[memoryview] = []
    size = 0
    for frame in received:
        parts.append(memoryview(frame)[1:])
        size += len(frame) - 1
        if limit is not None and size > limit:
            raise StreamRefused(f"a message has more than {limit} bytes")
        if frame[:1] == _MORE:
            # Many small ones would take memory beside their bytes.
            if len(frame) != FRAME_BYTES + 1:
                raise StreamRefused(f"a frame that more follow has {len(frame)} bytes")
        else:
            whole = b"".join(parts)
            parts, size = [], 0
            yield whole


def read_message(data: bytes) -> FromProxy:
    """Decode what a proxy says. Raises StreamRefused, and nothing else.

    Metrics, too, must be numbers, since they are averaged. A reason is shown, so it is cut and made
    printable.
    """
    try:
        item: FromProxy = from_msgpack(data, type=FromProxy)
        if isinstance(item, DeviceResult):
            convert(item.metrics, dict[str, int | float | list[int | float]])
            code, reason = printable(item.code, CODE_CHARACTERS), printable(item.reason)
            item = msgspec.structs.replace(item, code=code, reason=reason)
    # RecursionError: metrics may be nested a thousand times before they are looked at.
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise StreamRefused(f"no message of a proxy: {printable(str(error), 300)}") from error
    return item
