"""One cohort's part of a phase: command each device, gather replies, check, fold or pass on.

Runs in a proxy task, or inside the server for small fleets; the same code. Needs neither flwr nor
torch, so a proxy starts in a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal

import msgspec

from edge.logs import event
from edge.protocol.errors import DEVICE_CODES, OTHER_CODE, ProtocolError
from edge.protocol.messages import COMMAND_LIMIT, Claim, Command, Name, ObjectRef, Reply, Timing, decode, encode
from edge.protocol.names import arrays_key, command_key, content_key, reply_key, update_key
from edge.protocol.records import Records, decode_records, decode_skeleton, digest, encode_records
from fl_runtime.aggregation import ArraySpec, UpdateCheck, WeightedMean
from fl_runtime.ports import Clock, Commands, ObjectMissing, ObjectStore, Replies, Sleep, StoredReply

logger = logging.getLogger(__name__)

POLL_SECONDS = (0.05, 0.5)
"""First and longest wait between two looks at the replies table."""
PARALLEL = 4
"""Updates downloaded and decoded at once: bounds the memory above the mean itself."""
CONTENT_LIMIT = 1024
"""Characters of configs inside a command; longer ones go aside, once for all devices."""


class Target(msgspec.Struct, frozen=True):
    """A device to ask, and the message it is to answer."""

    device: Name
    node_id: int
    message_id: str


class PhaseRequest(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """Ask one cohort for one phase. ``seconds`` is the time the devices have."""

    run: Name
    fleet: Name
    cohort: Name
    phase: str
    server_round: int
    kind: str
    app: str
    targets: list[Target]
    content: str
    arrays: ObjectRef | None
    seconds: float
    flower_run_id: int
    run_config: str
    fold: bool
    weighted_by: str = "num-examples"
    specs: list[ArraySpec] | None = None
    size_limit: int = 2**31
    """Bytes of an update that may be downloaded."""
    checked: bool = True
    """False for messages of the app's own making, whose replies need no metrics."""


class DeviceResult(msgspec.Struct, frozen=True, kw_only=True, tag="device"):
    """What came of one device in one phase. ``content`` or ``update`` carries the reply when not folded."""

    device: Name
    node_id: int
    message_id: str
    status: Literal["ok", "error"]
    code: str = ""
    reason: str = ""
    metrics: dict[str, Any] = {}
    content: str = ""
    update: ObjectRef | None = None
    timing: Timing = Timing()
    bytes_up: int = 0
    bytes_down: int = 0


class Folded(msgspec.Struct, frozen=True, tag="folded"):
    """The cohort's weighted mean, as a records file."""

    phase: str
    records: bytes
    count: int


class PhaseDone(msgspec.Struct, frozen=True, tag="done"):
    """The cohort has nothing more to say in this phase."""

    phase: str


Event = DeviceResult | Folded | PhaseDone


class _Fold:
    """Folds accepted updates, apart by the metrics they report; in the end the largest group counts.

    So a device with odd metric keys is left out even when it answers first. The groups are bounded,
    since each holds a model.
    """

    GROUPS = 3

    def __init__(self, phase: str, weighted_by: str) -> None:
        self._phase = phase
        self._weighted_by = weighted_by
        self._groups: dict[frozenset[str], tuple[WeightedMean, list[DeviceResult]]] = {}
        self._refused: list[DeviceResult] = []

    def add(self, result: DeviceResult, records: Records) -> None:
        """Take one checked update in."""
        layout = frozenset(result.metrics)
        if layout not in self._groups and len(self._groups) == self.GROUPS:
            self._refused.append(odd_metrics(result))
            return
        mean, results = self._groups.setdefault(layout, (WeightedMean(self._weighted_by), []))
        try:
            mean.fold(records, float(result.metrics[self._weighted_by]))
            results.append(result)
        except ProtocolError:
            self._refused.append(odd_metrics(result))

    def finish(self) -> Iterator[Event]:
        """Every device's result, then the mean of the largest group."""
        groups = sorted(self._groups.values(), key=lambda group: len(group[1]), reverse=True)
        for _, results in groups[1:]:
            self._refused.extend(odd_metrics(result) for result in results)
        yield from self._refused
        if groups:
            mean, results = groups[0]
            yield from results
            yield Folded(self._phase, encode_records(mean.records()), mean.count)


def odd_metrics(result: DeviceResult) -> DeviceResult:
    """The result of a device that reports other metrics than most: it does not count."""
    return msgspec.structs.replace(result, status="error", code="metrics", reason="its metrics are not those of the other devices")


class CohortRunner:
    """Carries out phase requests."""

    def __init__(
        self, commands: Commands, replies: Replies, objects: ObjectStore, *, clock: Clock, sleep: Sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._commands = commands
        self._replies = replies
        self._objects = objects
        self._clock = clock
        self._sleep = sleep
        self._stopped = stopped

    def run(self, request: PhaseRequest) -> Iterator[Event]:
        """Yield one DeviceResult a target, the fold if asked for, then PhaseDone. Never raises for a device."""
        deadline = self._clock() + request.seconds
        fold = _Fold(request.phase, request.weighted_by)
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix=request.cohort) as pool:
            waiting = {target.device: target for target in request.targets}
            for failed in self._send_all(request, pool):
                del waiting[failed.device]
                yield failed
            for batch in self._await(request, waiting, deadline):
                for opened in as_completed([pool.submit(self._open, request, *pair) for pair in batch]):
                    result, records = opened.result()
                    if records is None:
                        yield result
                    else:
                        fold.add(result, records)
        for target in waiting.values():
            yield _failure(target, "no-reply", f"no reply within {request.seconds:.0f} s")
        yield from fold.finish()
        yield PhaseDone(request.phase)

    def _send_all(self, request: PhaseRequest, pool: ThreadPoolExecutor) -> Iterator[DeviceResult]:
        arrays, content_ref = self._references(request)
        sent = {pool.submit(self._send, request, target, arrays, content_ref): target for target in request.targets}
        for future in as_completed(sent):
            error = future.exception()
            if error is not None:
                event(logger, "command-not-sent", logging.WARNING, device=sent[future].device, reason=str(error))
                yield _failure(sent[future], "not-sent", f"the command could not be sent: {error}")

    def _references(self, request: PhaseRequest) -> tuple[ObjectRef | None, ObjectRef | None]:
        """Presign the phase's shared objects once; put the content aside when it is too long for a message."""
        arrays = request.arrays
        if arrays is not None:
            url = self._objects.url_to_get(arrays_key(request.run, arrays.digest), request.seconds)
            arrays = ObjectRef(arrays.digest, arrays.size, url)
        if len(request.content) <= CONTENT_LIMIT:
            return arrays, None
        data = request.content.encode()
        key = content_key(request.run, digest(data))
        self._objects.put(key, data)
        return arrays, ObjectRef(digest(data), len(data), self._objects.url_to_get(key, request.seconds))

    def _send(self, request: PhaseRequest, target: Target, arrays: ObjectRef | None, content_ref: ObjectRef | None) -> None:
        upload = self._objects.url_to_put(update_key(request.run, request.phase, target.device), request.seconds)
        payload = msgspec.json.encode(_command(request, target, arrays, content_ref, upload))
        if len(payload) > COMMAND_LIMIT:
            key = command_key(request.run, digest(payload))
            self._objects.put(key, payload)
            ref = ObjectRef(digest(payload), len(payload), self._objects.url_to_get(key, request.seconds))
            payload = encode(Claim(ref, request.seconds))
        self._commands.send(request.fleet, target.device, payload, request.seconds)

    def _await(self, request: PhaseRequest, waiting: dict[str, Target], deadline: float) -> Iterator[list[tuple[StoredReply, Target]]]:
        """Yield each target's first reply, removing it from ``waiting``, until all came or time is up."""
        key = reply_key(request.run, request.phase, request.cohort)
        pause = POLL_SECONDS[0]
        while waiting and self._clock() < deadline and not self._stopped():
            # A row of a device that was not asked, or that was read before, is left alone.
            batch = [
                (reply, waiting.pop(reply.device))
                for reply in self._replies.read(key)
                if reply.device in waiting and reply.fleet == request.fleet
            ]
            if batch:
                yield batch
            pause = POLL_SECONDS[0] if batch else min(pause * 1.3, POLL_SECONDS[1])
            if waiting:
                self._sleep(pause)

    def _open(self, request: PhaseRequest, stored: StoredReply, target: Target) -> tuple[DeviceResult, Records | None]:
        """Parse, download, check. Whatever is wrong with it becomes a result with a reason code."""
        try:
            reply = decode(stored.body, Reply)
            if (reply.run, reply.phase, reply.message_id) != (request.run, request.phase, target.message_id):
                raise ProtocolError("foreign", "the reply answers another message")
            up = len(stored.body) + (reply.update.size if reply.update else 0)
            if reply.status == "error":
                code = reply.code if reply.code in DEVICE_CODES else OTHER_CODE
                return _failure(target, code, reply.reason, reply.timing, up, reply.bytes_down), None
            records = self._records(request, reply, target)
            metrics = next(iter(records.metrics.values()), {})
            if request.checked:
                specs = request.specs if request.kind.startswith("train") else None
                UpdateCheck(weighted_by=request.weighted_by, arrays=specs).weight_of(records)
        except ProtocolError as error:
            return _failure(target, error.code, str(error)), None
        except ObjectMissing as error:
            return _failure(target, "update-missing", str(error)), None
        result = DeviceResult(
            device=target.device, node_id=target.node_id, message_id=target.message_id, status="ok", metrics=metrics,
            content="" if request.fold else reply.content, update=reply.update, timing=reply.timing,
            bytes_up=up, bytes_down=reply.bytes_down,
        )  # fmt: skip
        return result, records if request.fold else None

    def _records(self, request: PhaseRequest, reply: Reply, target: Target) -> Records:
        if reply.update is None:
            return decode_skeleton(reply.content)
        if reply.update.size > request.size_limit:
            raise ProtocolError("too-large", f"the update claims {reply.update.size} bytes")
        blob = self._objects.get(update_key(request.run, request.phase, target.device), reply.update.size)
        if digest(blob) != reply.update.digest:
            raise ProtocolError("bad-digest", "the update's digest is not the announced one")
        return decode_records(blob)


def _command(request: PhaseRequest, target: Target, arrays: ObjectRef | None, content_ref: ObjectRef | None, upload: str) -> Command:
    return Command(
        run=request.run, phase=request.phase, server_round=request.server_round, kind=request.kind,
        message_id=target.message_id, reply_key=reply_key(request.run, request.phase, request.cohort), app=request.app,
        seconds=request.seconds, flower_run_id=request.flower_run_id, node_id=target.node_id,
        content="" if content_ref else request.content, content_ref=content_ref, arrays=arrays, upload_url=upload,
        run_config=request.run_config,
    )  # fmt: skip


def _failure(target: Target, code: str, reason: str, timing: Timing = Timing(), up: int = 0, down: int = 0) -> DeviceResult:  # noqa: B008  # frozen
    return DeviceResult(
        device=target.device, node_id=target.node_id, message_id=target.message_id, status="error",
        code=code, reason=reason, timing=timing, bytes_up=up, bytes_down=down,
    )  # fmt: skip
