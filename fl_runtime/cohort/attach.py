"""The proxy's side of the wire: attach to the server and serve its phase requests."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Iterator
from typing import Protocol

import grpc

from edge.logs import event
from edge.typed import from_msgpack
from fl_runtime.cohort.mtls import Identity
from fl_runtime.cohort.rpc import CHANNEL_OPTIONS, METHOD, FromServer, Goodbye, frames, messages
from fl_runtime.run.messages import PhaseEvent, PhaseRequest

logger = logging.getLogger(__name__)

QUEUED_FRAMES = 4
"""Frames that wait to be sent: a whole model in the queue would double a proxy's memory."""
WAIT_SECONDS = 1.0
"""How often a proxy that waits for its server looks whether the stream still lives."""


class PhaseRunner(Protocol):
    """Carries out phase requests: :class:`~fl_runtime.cohort.runner.CohortRunner`."""

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        """The events of one phase."""


def attach(address: str, cohort: str, identity: Identity, runner: PhaseRunner) -> bool:
    """Serve phase requests of the server at ``address`` (``host:port``) until it says goodbye.
    The identity's certificate says which cohort this is; ``cohort`` names it in logs.

    True after a goodbye; False when the connection was lost, so the caller may try again.
    """
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)
    outbox: queue.Queue[bytes | None] = queue.Queue(QUEUED_FRAMES)
    with grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS) as channel:
        # gRPC sends from a thread of its own, until the queue gives None.
        stream = channel.stream_stream(METHOD)(iter(outbox.get, None))
        try:
            for data in messages(stream):
                request = from_msgpack(data, type=FromServer)
                if isinstance(request, Goodbye):
                    return True
                for item in runner.run(request):
                    # When not all was sent, the server gave the phase up, or is gone.
                    if not all(_sent(frame, outbox, stream) for frame in frames(item)):
                        break
        except grpc.RpcError as error:
            event(logger, "server-lost", logging.WARNING, cohort=cohort, reason=str(error.code()))
        finally:
            stream.cancel()
            with contextlib.suppress(queue.Full):  # whom a frame wakes needs nothing more
                outbox.put_nowait(None)
    return False


def _sent(frame: bytes, outbox: queue.Queue[bytes | None], stream: grpc.Call) -> bool:
    """Hand a frame to gRPC, waiting until it has sent others; False when the stream has ended."""
    while stream.is_active():
        with contextlib.suppress(queue.Full):
            outbox.put(frame, timeout=WAIT_SECONDS)
            return True
    return False
