"""``IoTGrid``: Flower's grid over a fleet of AWS IoT devices.

``Strategy`` and ``ServerApp`` see an ordinary ``flwr.serverapp.Grid``; behind it messages become
phase requests to cohorts, and events become replies. Replies come back by themselves when the
server asked each device, or as one weighted mean a cohort when ``folding`` is on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.records import (
    ArrayMap,
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.protocol.signed import phase_text
from edge.training.flower_compat import from_recorddict, to_recorddict
from fl_runtime.cohort.updates import changed_meanwhile, read_update
from fl_runtime.run.cohorts import Cohort, Member, flower_run_id
from fl_runtime.run.keys import arrays_key, phase_id
from fl_runtime.run.messages import (
    ArraySpec,
    DeviceResult,
    Event,
    Folded,
    PhaseRequest,
    Target,
    array_specs,
)
from fl_runtime.run.ports import Clock, ObjectMissing, ObjectStore
from fl_runtime.run.records import PhaseStats
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.flower_compat import empty_run, make_error, make_reply, name_message
from fl_runtime.server.rounds.selection import NORM_FACTOR

MODEL = "arrays"
"""The record key by which Flower's strategies send the model: what is stored of a round is what the
next one sends.
"""


class Cohorts(Protocol):
    """Port: carries out a phase request, in this process (CohortRunner) or by proxies (ProxyHub)."""

    def run(self, request: PhaseRequest) -> Iterator[Event]:
        """Yield events until the cohort is done."""


@dataclass(frozen=True, kw_only=True)
class Folding:
    """Cohorts fold replies into one mean weighted by this metric."""

    weighted_by: str


@dataclass(frozen=True)
class _Sent:
    """What every device gets in one phase."""

    arrays: ObjectRef | None
    specs: list[ArraySpec] | None
    skeleton: str


class IoTGrid(Grid):  # type: ignore[misc]  # flwr is untyped here
    """A grid whose nodes are the devices of one run's cohorts."""

    def __init__(
        self,
        spec: RunSpec,
        cohorts: list[Cohort],
        backend: Cohorts,
        objects: ObjectStore,
        *,
        clock: Clock,
        signer: Signer = lambda _: "",
    ) -> None:
        self._spec = spec
        self._sign = signer
        self._backend = backend
        self._objects = objects
        self._clock = clock
        self._members = {
            member.node_id: (cohort.cohort, member.device)
            for cohort in cohorts
            for member in cohort.members
        }
        self.cohorts = cohorts
        self.members = [member for cohort in cohorts for member in cohort.members]
        self._run = empty_run(flower_run_id(spec.run))
        self._sequence = 0
        self._lock = threading.Lock()
        self._stored: set[str] = set()
        self._pulled: dict[str, Message] = {}
        self.folding: Folding | None = None
        """Set by the round loop for strategies that are a weighted mean."""
        self.checked = False
        """Whether replies must look like the model (set by the round loop)."""
        self.norm_limit = 0.0
        """Largest norm of a change that counts, known from earlier rounds (set by the round loop).
        """
        self.asked: list[Member] = self.members
        """The devices that strategies may choose among in this round (set by the round loop)."""
        self.stats: list[PhaseStats] = []

    @property
    def sequence(self) -> int:
        """How many phases there were: their names count on from here."""
        return self._sequence

    def resume_at(self, sequence: int) -> None:
        """Name the next phases as the server before would have: devices that have answered them
        need not train again.
        """
        self._sequence = sequence

    def set_run(self, run: Run) -> None:
        """Flower's runtime may name the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of this run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Deprecated in Flower, still used by older apps."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The devices of this run, without those that the round leaves out."""
        return [member.node_id for member in self.asked]

    def device(self, node_id: int) -> str:
        """A node's device name."""
        return self._members[node_id][1]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends at once and waits: replies are ready when this returns."""
        batch = list(messages)
        for reply in self.send_and_receive(batch):
            self._pulled[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to pushed messages, each once."""
        return [
            self._pulled.pop(message_id) for message_id in message_ids if message_id in self._pulled
        ]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        spares: frozenset[int] = frozenset(),
    ) -> Iterable[Message]:
        """Send to devices and gather replies until all came or time is up; a silent device gives an
        error reply.

        With ``spares`` (node ids), a cohort's part is over once as many have answered as it has
        devices that are none.
        """
        batches: dict[tuple[int, str], list[Message]] = {}
        for message in messages:
            # All messages of a phase share one RecordDict (Flower's strategies do so): it is sent
            # once.
            batches.setdefault((id(message.content), message.metadata.message_type), []).append(
                message
            )
        seconds = min(timeout or self._spec.phase_seconds, self._spec.phase_seconds)
        return [
            reply for batch in batches.values() for reply in self._phase(batch, seconds, spares)
        ]

    def _phase(
        self, messages: list[Message], seconds: float, spares: frozenset[int]
    ) -> list[Message]:
        content = from_recorddict(messages[0].content)
        kind = messages[0].metadata.message_type
        server_round = _round_of(content)
        arrays, specs = self._store_arrays(content)
        skeleton = encode_skeleton(
            Records(metrics=content.metrics, configs=content.configs, order=content.order)
        )
        sent = digest(f"{arrays.digest if arrays else ''} {skeleton}".encode())
        with self._lock:  # an app may send from several threads
            self._sequence += 1
            stats = PhaseStats(
                phase_id(server_round, kind, self._sequence, sent), kind, server_round
            )
        by_node = {message.metadata.dst_node_id: message for message in messages}
        for node_id, message in by_node.items():
            name_message(message, f"{self._spec.run}.{stats.phase}.{self._members[node_id][1]}")
        requests = self._requests(stats, _Sent(arrays, specs, skeleton), by_node, seconds, spares)
        started = self._clock()
        replies = [
            reply
            for item, request in self._events(requests)
            if (reply := self._reply(item, request, by_node, stats)) is not None
        ]
        stats.seconds = self._clock() - started
        stats.results.sort(key=lambda result: result.device)
        self.stats.append(stats)
        # In a fixed order, whoever answered first: a sum of floats depends on it, and so would a
        # run's result.
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _requests(
        self,
        stats: PhaseStats,
        sent: _Sent,
        by_node: dict[int, Message],
        seconds: float,
        spares: frozenset[int],
    ) -> list[PhaseRequest]:
        fold = self.folding is not None and stats.kind in ("train", "evaluate")
        run_config, arrays = (
            msgspec.json.encode(self._spec.run_config).decode(),
            sent.arrays.digest if sent.arrays else "",
        )
        signature = self._sign(
            phase_text(
                run=self._spec.run,
                phase=stats.phase,
                kind=stats.kind,
                app=self._spec.app,
                arrays=arrays,
                content=sent.skeleton,
                run_config=run_config,
            )
        )
        requests = []
        for cohort in self.cohorts:
            targets = [
                Target(m.device, m.node_id, by_node[m.node_id].metadata.message_id)
                for m in cohort.members
                if m.node_id in by_node
            ]
            if not targets:
                continue
            wanted = sum(target.node_id not in spares for target in targets)
            requests.append(
                PhaseRequest(
                    run=self._spec.run,
                    fleet=self._spec.fleet,
                    cohort=cohort.cohort,
                    phase=stats.phase,
                    server_round=stats.server_round,
                    kind=stats.kind,
                    app=self._spec.app,
                    targets=targets,
                    content=sent.skeleton,
                    arrays=sent.arrays,
                    seconds=seconds,
                    flower_run_id=flower_run_id(self._spec.run),
                    run_config=run_config,
                    signature=signature,
                    fold=fold,
                    weighted_by=self.folding.weighted_by if self.folding else "num-examples",
                    specs=sent.specs if self.checked else None,
                    size_limit=_size_limit(sent.arrays, self.checked),
                    checked=self.checked,
                    enough=wanted if wanted < len(targets) else 0,
                    norm_limit=self.norm_limit,
                    norm_factor=NORM_FACTOR,
                )
            )
        return requests

    def store(self, arrays: ArrayMap) -> str:
        """Put weights where devices fetch them, once for each digest; returns the digest."""
        return self._store(encode_records(Records(arrays={MODEL: arrays})))

    def stored(self, name: str) -> ArrayMap:
        """Weights that :meth:`store` put; raises ObjectMissing."""
        return next(
            iter(
                decode_records(self._objects.get(arrays_key(self._spec.run, name))).arrays.values()
            )
        )

    def adopt(self, name: str, run: str) -> None:
        """Keep another run's weights as this run's too; those that are gone are left."""
        with contextlib.suppress(ObjectMissing):
            self._store(self._objects.get(arrays_key(run, name)))

    def _store(self, blob: bytes) -> str:
        name = digest(blob)
        if name not in self._stored:
            self._objects.put(arrays_key(self._spec.run, name), blob)
            self._stored.add(name)
        return name

    def _store_arrays(self, content: Records) -> tuple[ObjectRef | None, list[ArraySpec] | None]:
        """Put the weights where devices fetch them, once for each digest."""
        if not content.arrays:
            return None, None
        blob = encode_records(Records(arrays=content.arrays))
        name = self._store(blob)
        specs = (
            array_specs(next(iter(content.arrays.values()))) if len(content.arrays) == 1 else None
        )
        return ObjectRef(name, len(blob)), specs

    def _events(self, requests: list[PhaseRequest]) -> Iterator[tuple[Event, PhaseRequest]]:
        """Run all cohorts at once and yield their events as they come."""
        if len(requests) == 1:
            yield from ((item, requests[0]) for item in self._backend.run(requests[0]))
            return
        merged: queue.Queue[tuple[Event, PhaseRequest] | BaseException | None] = queue.Queue()

        def drain(request: PhaseRequest) -> None:
            try:
                for item in self._backend.run(request):
                    merged.put((item, request))
            except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
                merged.put(error)
            finally:
                merged.put(None)

        for request in requests:
            threading.Thread(target=drain, args=(request,), daemon=True).start()
        open_cohorts = len(requests)
        while open_cohorts:
            item = merged.get()
            if item is None:
                open_cohorts -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def _reply(
        self, item: Event, request: PhaseRequest, by_node: dict[int, Message], stats: PhaseStats
    ) -> Message | None:
        if isinstance(item, DeviceResult):
            stats.results.append(item)
            message = by_node[item.node_id]
            if item.status == "error":
                return make_error(message, item.code, item.reason)
            if item.status == "spare" or request.fold:
                return None
            try:
                return make_reply(message, to_recorddict(self._content(item, request)))
            except (ProtocolError, ObjectMissing) as error:
                return self._changed(item, message, stats, error)
        if isinstance(item, Folded):
            # The mean speaks for its cohort: it answers the message of the cohort's first device.
            first = next(
                t
                for t in request.targets
                if any(r.device == t.device and r.status == "ok" for r in stats.results)
            )
            return make_reply(by_node[first.node_id], to_recorddict(decode_records(item.records)))
        return None

    def _changed(
        self, item: DeviceResult, message: Message, stats: PhaseStats, error: Exception
    ) -> Message:
        stats.results[-1] = changed_meanwhile(item, error)
        return make_error(message, "bad-digest", stats.results[-1].reason)

    def _content(self, item: DeviceResult, request: PhaseRequest) -> Records:
        if item.update is None:
            return decode_skeleton(item.content)
        return read_update(self._objects, request, item.device, item.update)


def _round_of(content: Records) -> int:
    """FedAvg puts the round into the config; a message of the app's own making belongs to round 0."""
    for config in content.configs.values():
        value = config.get("server-round")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _size_limit(arrays: ObjectRef | None, checked: bool) -> int:
    """An update that must look like the model may be its size and a little; any other is bounded by
    2 GiB.
    """
    return arrays.size * 2 + 2**20 if arrays is not None and checked else 2**31
