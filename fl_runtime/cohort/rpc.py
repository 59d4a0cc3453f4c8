"""Server and proxies over gRPC: one bidirectional stream a proxy, mutual TLS, MessagePack messages.

The proxy opens the stream and says which cohort it serves; the server sends phase requests and
gets events back. A proxy that returns after a fault gets the pending request again: devices answer
a repeated command from memory, so nothing is trained twice.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import msgspec

from edge.logs import event
from fl_runtime.cohort.mtls import Identity
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.messages import DeviceResult, Event, Folded, PhaseDone, PhaseRequest
from fl_runtime.run.ports import Clock

logger = logging.getLogger(__name__)

METHOD = "/mledgeops.Cohorts/Attach"
GRACE_SECONDS = 5.0
"""What a cohort's answer may take beyond the devices' own time."""
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A proxy's first message."""

    cohort: str


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The server's last message: the run is over, or another proxy serves the cohort now. The proxy
    may end.
    """


FromProxy = Hello | DeviceResult | Folded | PhaseDone
FromServer = PhaseRequest | Goodbye


class _Line:
    """One cohort's state at the server: what waits for its proxy, and what came back."""

    def __init__(self) -> None:
        self.outbox: queue.Queue[FromServer] = queue.Queue()
        self.pending: PhaseRequest | None = None
        self.inbox: queue.Queue[Event] = queue.Queue()
        self.session = 0
        self.lock = threading.Lock()


class ProxyHub:
    """The server's side: hands phase requests to proxies and yields their events."""

    def __init__(self, cohorts: list[str], identity: Identity, *, host: str, clock: Clock) -> None:
        self._lines = {cohort: _Line() for cohort in cohorts}
        self._clock = clock
        self._pool = ThreadPoolExecutor(len(cohorts) + 4, thread_name_prefix="grpc")
        self._server = grpc.server(self._pool, options=_OPTIONS)
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

    def run(self, request: PhaseRequest) -> Iterator[Event]:
        """Events of one cohort's phase. A proxy that does not answer in time ends it with what
        came.
        """
        line = self._lines[request.cohort]
        asked = {target.message_id for target in request.targets}
        answered: set[str] = set()
        folded = False
        with line.lock:
            line.pending, line.inbox = request, queue.Queue()
            line.outbox.put(request)
        deadline = self._clock() + request.seconds + GRACE_SECONDS
        while (left := deadline - self._clock()) > 0:
            try:
                item = line.inbox.get(timeout=left)
            except queue.Empty:
                break
            # What a slow proxy still says of an earlier phase, and what its successor says again,
            # count for nothing.
            if (
                isinstance(item, DeviceResult)
                and item.message_id in asked
                and item.device not in answered
            ):
                answered.add(item.device)
                yield item
            elif isinstance(item, Folded) and item.phase == request.phase and not folded:
                folded = True
                yield item
            elif isinstance(item, PhaseDone) and item.phase == request.phase:
                break
        line.pending = None
        for target in request.targets:
            if target.device not in answered:
                yield DeviceResult(
                    device=target.device,
                    node_id=target.node_id,
                    message_id=target.message_id,
                    status="error",
                    code="cohort-lost",
                    reason=f"the proxy of cohort {request.cohort} did not answer in time",
                )
        yield PhaseDone(request.phase)

    def close(self, *, goodbye: bool = True) -> None:
        """Stop serving. ``goodbye``: tell every proxy to end; without it they wait for the run's
        next server.
        """
        if goodbye:
            for line in self._lines.values():
                line.outbox.put(Goodbye())
        self._server.stop(grace=2.0).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _attach(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One proxy's stream, for as long as it lasts. A newer stream of the same cohort replaces
        it.
        """
        hello = msgspec.msgpack.decode(next(requests), type=FromProxy)
        line = self._lines.get(hello.cohort) if isinstance(hello, Hello) else None
        if line is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such cohort in this run")
            return
        with line.lock:
            line.session += 1
            session = line.session
            outbox: queue.Queue[FromServer] = queue.Queue()
            line.outbox = outbox
            if line.pending is not None:
                outbox.put(line.pending)
        event(logger, "proxy-attached", cohort=hello.cohort, session=session)
        threading.Thread(target=self._receive, args=(line, session, requests), daemon=True).start()
        while context.is_active() and line.session == session:
            try:
                item = outbox.get(timeout=0.5)
            except queue.Empty:
                continue
            yield msgspec.msgpack.encode(item)
            if isinstance(item, Goodbye):
                return
        # another proxy has taken the cohort over: two would take it from each other for ever
        if context.is_active():
            yield msgspec.msgpack.encode(Goodbye())

    def _receive(self, line: _Line, session: int, requests: Iterator[bytes]) -> None:
        try:
            for data in requests:
                item = msgspec.msgpack.decode(data, type=FromProxy)
                if line.session == session and not isinstance(item, Hello):
                    line.inbox.put(item)
        except grpc.RpcError:
            event(logger, "proxy-detached", logging.WARNING, session=session)


def attach(
    address: str, cohort: str, identity: Identity, runner: CohortRunner, stopped: Callable[[], bool]
) -> bool:
    """The proxy's side: serve phase requests until the server says goodbye.

    True after a goodbye; False when the connection was lost, so the caller may try again.
    """
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)
    outbox: queue.Queue[bytes | None] = queue.Queue()
    outbox.put(msgspec.msgpack.encode(Hello(cohort)))
    with grpc.secure_channel(address, credentials, options=_OPTIONS) as channel:
        stream = channel.stream_stream(METHOD)(iter(outbox.get, None))
        try:
            for data in stream:
                request = msgspec.msgpack.decode(data, type=FromServer)
                if isinstance(request, Goodbye):
                    return True
                for item in runner.run(request):
                    if stopped():
                        return False
                    outbox.put(msgspec.msgpack.encode(item))
        except grpc.RpcError as error:
            event(logger, "server-lost", logging.WARNING, cohort=cohort, reason=str(error.code()))
        finally:
            outbox.put(None)
            stream.cancel()
    return False
