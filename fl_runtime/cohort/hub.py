"""The server's side of the wire: hands phase requests to proxies and yields their events."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import msgspec

from edge.logs import event
from fl_runtime.cohort.mtls import Identity
from fl_runtime.cohort.rpc import (
    CHANNEL_OPTIONS,
    METHOD,
    FromProxy,
    FromServer,
    Goodbye,
    Hello,
)
from fl_runtime.run.messages import (
    DeviceResult,
    Folded,
    PhaseDone,
    PhaseEvent,
    PhaseRequest,
    failure,
)
from fl_runtime.run.ports import Clock

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""Time a cohort's answer may take beyond the devices' own time."""
STOP_SECONDS = 2.0
"""Time the streams have to end when the hub closes."""


class ProxyHub:
    """A gRPC server that proxies attach to. ``port`` is the one it listens on."""

    def __init__(self, cohorts: list[str], identity: Identity, *, host: str, clock: Clock) -> None:
        self._lines = {cohort: _Line() for cohort in cohorts}
        self._clock = clock
        # A stream occupies a thread for as long as it lasts; the spare ones take successors.
        self._pool = ThreadPoolExecutor(len(cohorts) + 4, thread_name_prefix="grpc")
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
        """
        line = self._lines[request.cohort]
        line.begin(request)
        deadline = self._clock() + request.seconds + GRACE_SECONDS
        answered = set()
        for item in _of_phase(request, line.events(deadline, self._clock)):
            if isinstance(item, DeviceResult):
                answered.add(item.device)
            yield item
        line.pending = None
        reason = f"the proxy of cohort {request.cohort} did not answer in time"
        for target in request.targets:
            if target.device not in answered:
                yield failure(target, "cohort-lost", reason)
        yield PhaseDone(request.phase)

    def close(self, *, goodbye: bool = True) -> None:
        """Stop serving. ``goodbye``: tell every proxy to end; without it they wait for the run's
        next server.
        """
        if goodbye:
            for line in self._lines.values():
                line.outbox.put(Goodbye())
        self._server.stop(grace=STOP_SECONDS).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _attach(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serve one proxy's stream until it ends, or a newer one of its cohort replaces it."""
        hello = msgspec.msgpack.decode(next(requests), type=FromProxy)
        line = self._lines.get(hello.cohort) if isinstance(hello, Hello) else None
        if line is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such cohort in this run")
            return
        session, outbox = line.connect()
        event(logger, "proxy-attached", cohort=hello.cohort, session=session)
        threading.Thread(target=_receive, args=(line, session, requests), daemon=True).start()
        while context.is_active() and line.session == session:
            try:
                item = outbox.get(timeout=0.5)
            except queue.Empty:
                continue
            yield msgspec.msgpack.encode(item)
            if isinstance(item, Goodbye):
                return
        # Without a goodbye the replaced proxy would reconnect, and the two would take the cohort
        # from each other forever.
        if context.is_active():
            yield msgspec.msgpack.encode(Goodbye())


class _Line:
    """One cohort at the server: its pending request, what to send and what came back."""

    def __init__(self) -> None:
        self.outbox: queue.Queue[FromServer] = queue.Queue()
        self.pending: PhaseRequest | None = None
        self.inbox: queue.Queue[PhaseEvent] = queue.Queue()
        self.session = 0
        """Number of the newest stream; older ones end."""
        self._lock = threading.Lock()

    def begin(self, request: PhaseRequest) -> None:
        """Send a request to the proxy attached now, or to the next one."""
        with self._lock:
            self.pending, self.inbox = request, queue.Queue()
            self.outbox.put(request)

    def connect(self) -> tuple[int, queue.Queue[FromServer]]:
        """Replace the stream: (session, outbox). The new one starts with the pending request."""
        with self._lock:
            self.session += 1
            self.outbox = queue.Queue()
            if self.pending is not None:
                self.outbox.put(self.pending)
            return self.session, self.outbox

    def events(self, deadline: float, clock: Clock) -> Iterator[PhaseEvent]:
        """What arrives until the deadline."""
        while (left := deadline - clock()) > 0:
            try:
                yield self.inbox.get(timeout=left)
            except queue.Empty:
                return


def _of_phase(request: PhaseRequest, events: Iterator[PhaseEvent]) -> Iterator[PhaseEvent]:
    """The events of this phase, each once, until it is done. A slow proxy may still speak of an
    earlier phase, and its successor repeats what it said.
    """
    asked = {target.message_id for target in request.targets}
    answered: set[str] = set()
    folded = False
    for item in events:
        if isinstance(item, DeviceResult):
            if item.message_id in asked and item.device not in answered:
                answered.add(item.device)
                yield item
        elif item.phase != request.phase:
            continue
        elif isinstance(item, Folded):
            if not folded:
                folded = True
                yield item
        else:
            return


def _receive(line: _Line, session: int, requests: Iterator[bytes]) -> None:
    """Put what the proxy of a session says into the inbox, in a thread of its own."""
    try:
        for data in requests:
            item = msgspec.msgpack.decode(data, type=FromProxy)
            if line.session == session and not isinstance(item, Hello):
                line.inbox.put(item)
    except grpc.RpcError:
        event(logger, "proxy-detached", logging.WARNING, session=session)
