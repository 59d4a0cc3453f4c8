"""The server's side of the wire: hands phase requests to proxies and yields their events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from edge.logs import event
from fl_runtime.cohort.line import MESSAGE_BYTES, STREAMS, Line
from fl_runtime.cohort.mtls import Identity
from fl_runtime.cohort.rpc import (
    CHANNEL_OPTIONS,
    METHOD,
    Goodbye,
    StreamRefused,
    frames,
    messages,
    read_message,
)
from fl_runtime.run.messages import DeviceResult, PhaseDone, PhaseEvent, PhaseRequest, failure
from fl_runtime.run.ports import Clock

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""Time a cohort's answer may take beyond the devices' own time."""
STOP_SECONDS = 2.0
"""Time the streams have to end when the hub closes."""


class ProxyHub:
    """A gRPC server that proxies attach to. ``port`` is the one it listens on."""

    def __init__(self, cohorts: list[str], identity: Identity, *, host: str, clock: Clock) -> None:
        self._lines = {cohort: Line() for cohort in cohorts}
        self._clock = clock
        # A stream occupies a thread for as long as it lasts; the spare ones refuse further ones.
        self._pool = ThreadPoolExecutor(STREAMS * len(cohorts) + 4, thread_name_prefix="grpc")
        self._server = grpc.server(self._pool, options=CHANNEL_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._attach)
        service, method = METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)], identity.ca, require_client_auth=True
        )
        self.port = self._server.add_secure_port(f"{host}:0", credentials)
        self._server.start()

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        """The events of one cohort's phase. Devices whose result the proxy does not deliver in time
        fail with ``cohort-lost``.

        An app may have several phases at once; those of one cohort take turns.
        """
        line = self._lines[request.cohort]
        with line.turn:
            yield from self._run(line, request)

    def _run(self, line: Line, request: PhaseRequest) -> Iterator[PhaseEvent]:
        line.begin(request)
        deadline = self._clock() + request.seconds + GRACE_SECONDS
        answered, done = set(), False
        for item in line.events(deadline, self._clock):
            done = isinstance(item, PhaseDone)
            if done:
                break
            if isinstance(item, DeviceResult):
                answered.add(item.device)
            yield item
        line.finish()
        if not done:
            # It says nothing: a proxy that can will attach again.
            line.hang_up()
        reason = f"the proxy of cohort {request.cohort} did not answer in time"
        for target in request.targets:
            if target.device not in answered:
                yield failure(target, "cohort-lost", reason)
        yield PhaseDone(request.phase)

    def close(self, *, goodbye: bool = True) -> None:
        """Stop serving. ``goodbye``: tell every proxy to end; without it they wait for the run's
        next server.
        """
        for line in self._lines.values():
            if goodbye:
                line.say_goodbye()
            else:
                line.hang_up()
        self._server.stop(grace=STOP_SECONDS).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _attach(self, received: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serve one proxy's stream until it ends, or a newer one of its cohort replaces it."""
        cohort = _cohort_of(context)
        line = self._lines.get(cohort)
        if line is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such cohort in this run")
            return
        stream = line.connect()
        if stream is None:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the cohort has other streams")
            return
        if not context.add_callback(lambda: line.disconnect(stream)):
            line.disconnect(stream)  # it has ended already
        event(logger, "proxy-attached", cohort=cohort, session=stream.session)
        threading.Thread(
            target=_receive, args=(line, stream.session, received, context), daemon=True
        ).start()
        for item in stream.outgoing():
            yield from frames(item)
            if isinstance(item, Goodbye):
                return


def _cohort_of(context: grpc.ServicerContext) -> str:
    """The cohort that the peer's certificate was made for."""
    names = context.auth_context().get("x509_common_name", [])
    return names[0].decode(errors="replace") if len(names) == 1 else ""


def _receive(
    line: Line, session: int, received: Iterator[bytes], context: grpc.ServicerContext
) -> None:
    """Hand what the proxy of a session says to its line, in a thread of its own."""
    try:
        for data in messages(received, MESSAGE_BYTES):
            line.accept(session, read_message(data))
    except grpc.RpcError:
        event(logger, "proxy-detached", logging.WARNING, session=session)
    except StreamRefused as error:
        event(logger, "proxy-refused", logging.ERROR, session=session, reason=str(error))
        context.cancel()
