"""The wire between server and proxies: gRPC, one bidirectional stream for each proxy, mutual TLS,
MessagePack messages.

The proxy opens the stream and says which cohort it serves; the server sends phase requests and
gets events back. A proxy that reconnects gets the pending request again: devices answer a repeated
command from memory, so nothing is trained twice. :mod:`fl_runtime.cohort.hub` is the server's side,
:mod:`fl_runtime.cohort.attach` the proxy's.
"""

from __future__ import annotations

import msgspec

from fl_runtime.run.messages import DeviceResult, Folded, PhaseDone, PhaseRequest

METHOD = "/mledgeops.Cohorts/Attach"
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
"""A folded model is far above gRPC's 4 MB limit. A phase may pass for minutes without data, so both
sides ping: https://grpc.io/docs/guides/keepalive/.
"""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A proxy's first message."""

    cohort: str


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The server's last message: the run is over, or a newer proxy serves the cohort. The proxy
    may end.
    """


FromProxy = Hello | DeviceResult | Folded | PhaseDone
FromServer = PhaseRequest | Goodbye
