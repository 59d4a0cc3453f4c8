"""What lies beyond the server's ports: objects, the runs table, replies, commands and MLflow.

Every call passes two points at which its process can be killed: before it has an effect, and after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import msgspec
from botocore.exceptions import ClientError

from edge.protocol.names import topic
from edge.protocol.records import digest
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.ports import StoredReply
from fl_runtime.run.records import DeviceRow, RoundRecord
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import TERMINAL_STATES, RunState
from pipelines.chaos.simulation.scheduler import Scheduler
from pipelines.chaos.simulation.weather import Weather

Result = TypeVar("Result")
Deliver = Callable[[str, bytes], None]
"""Hands a message to a device's loop: topic and payload."""
SEPARATOR = " | "
START = 1_800_000_000.0
"""Unix time at which a simulation begins."""


class SimulatedCloud:
    """What outlives every process."""

    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        self.scheduler = scheduler
        self.weather = weather
        self.objects: dict[str, bytes] = {}
        self.runs: dict[str, RunState] = {}
        self.commits: list[tuple[int, int, str]] = []
        """(round, epoch, checkpoints) of each committed round."""
        self.replies: dict[str, dict[str, StoredReply]] = {}
        self.connected: dict[str, Deliver] = {}
        self.serving = ""
        """The process that took the run over last."""
        self.faults: list[str] = []
        """What a process did that it had no right to."""
        self.logged: list[tuple[int, int]] = []
        """(round, time) of each point in MLflow's history."""

    def delay(self) -> float:
        """How long a message or transfer takes."""
        return self.scheduler.rng.expovariate(1.0 / self.weather.delay)

    def chance(self, share: float) -> bool:
        """Whether something of this share happens now."""
        return self.scheduler.rng.random() < share

    def call(self, name: str, effect: Callable[[], Result]) -> Result:
        """A call of a service by the current strand."""
        rng, scheduler = self.scheduler.rng, self.scheduler
        scheduler.sleep(rng.uniform(0.001, 0.02))
        if self.chance(self.weather.service_fails):
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, name)
        scheduler.note(scheduler.current().process.name, name)
        result = effect()
        scheduler.sleep(rng.uniform(0.001, 0.02))
        return result

    def send(self, device: str, source: str, payload: bytes) -> None:
        """Bring a message to a device: late, never, twice or in another order."""
        copies = 0 if self.chance(self.weather.lost) else 1
        copies += self.chance(self.weather.duplicated)
        for _ in range(copies):
            self.scheduler.at(self.delay(), lambda: self._deliver(device, source, payload))

    def publish(self, device: str, source: str, payload: bytes) -> None:
        """A device's message has reached the broker, whose rules act on it."""
        kind, fleet = source.rsplit("/", 1)[-1], source.split("/")[1]
        self.scheduler.note("broker", source, len(payload))
        if source.endswith("/jobs/start-next"):
            self.send(device, f"{source}/accepted", b"{}")
        if kind != "reply" or source != f"fl/{fleet}/{device}/reply":  # the device's policy
            return
        try:
            row = json.loads(payload)
            key, body = row["key"], row["body"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(key, str) and key:
            text = body if isinstance(body, str) else ""
            self.replies.setdefault(key, {})[device] = StoredReply(fleet, device, text)

    def url(self, key: str, seconds: float, limit: int = 0) -> str:
        """A presigned address; uploads to it have at most ``limit`` bytes."""
        return SEPARATOR.join([key, str(self.scheduler.now + seconds), str(limit)])

    def _deliver(self, device: str, source: str, payload: bytes) -> None:
        handler = self.connected.get(device)
        if handler is not None:
            handler(source, payload)


def key_of(url: str, now: float, size: int = 0) -> str | None:
    """The key behind an address; None when it has expired, or is not for so many bytes."""
    key, until, limit = url.split(SEPARATOR)
    return key if now <= float(until) and size <= int(limit) else None


class CloudObjects:
    """The server's :class:`~fl_runtime.run.ports.ObjectStore`."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def get(self, key: str, limit: int | None = None) -> bytes:
        """See the port."""

        def effect() -> bytes:
            data = self._cloud.objects.get(key)
            if data is None or (limit is not None and len(data) > limit):
                raise ObjectMissing(key)
            return data

        return self._cloud.call("get-object", effect)

    def download(self, key: str, file: BinaryIO, limit: int) -> str:
        """See the port."""
        blob = self.get(key, limit)
        file.write(blob)
        return digest(blob)

    def put(self, key: str, data: bytes) -> None:
        """See the port."""
        self._cloud.call("put-object", lambda: self._cloud.objects.__setitem__(key, data))

    def url_to_get(self, key: str, seconds: float) -> str:
        """See the port."""
        return self._cloud.url(key, seconds)

    def discard(self, key: str) -> None:
        """See the port."""
        self._cloud.call("delete-object", lambda: self._cloud.objects.pop(key, None))

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        """See the port."""
        return self._cloud.url(key, seconds, limit)


class CloudRuns:
    """The server's runs table, with DynamoDB's conditions."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def get(self, run: str) -> RunState | None:
        """See RunTable."""
        return self._cloud.call("get-run", lambda: self._cloud.runs.get(run))

    def take_over(self, run: str) -> int:
        """See RunTable."""

        def effect() -> int:
            epoch = self._cloud.runs[run].epoch + 1
            self._cloud.serving = self._process()
            self._set(run, epoch=epoch)
            return epoch

        return self._cloud.call("take-over", effect)

    def commit_round(self, run: str, epoch: int, number: int, checkpoint: str) -> bool:
        """See RunTable."""

        def effect() -> bool:
            state = self._cloud.runs[run]
            if state.epoch != epoch or state.state in TERMINAL_STATES:
                return False
            self._set(run, finished_round=number, checkpoint=checkpoint)
            self._cloud.commits.append((number, epoch, checkpoint))
            self._cloud.scheduler.note("committed", number, epoch, checkpoint)
            return True

        return self._cloud.call("commit-round", effect)

    def update(
        self, run: str, *, unless: tuple[str, ...] = (), epoch: int = 0, **changes: Any
    ) -> bool:
        """See RunTable."""

        def effect() -> bool:
            state = self._cloud.runs[run]
            if state.state in (*TERMINAL_STATES, *unless) or epoch not in (0, state.epoch):
                return False
            if changes.get("state") == "Concluding" and self._process() != self._cloud.serving:
                self._cloud.faults.append(
                    f"{self._process()} announced the end of the run that {self._cloud.serving}"
                    " serves"
                )
            self._set(run, **changes)
            return True

        return self._cloud.call("update-run", effect)

    def _process(self) -> str:
        return self._cloud.scheduler.current().process.name

    def _set(self, run: str, **changes: Any) -> None:
        runs = self._cloud.runs
        runs[run] = msgspec.structs.replace(runs[run], **changes)


class CloudMessages:
    """The server's Commands and Replies."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """See Commands."""
        source = topic(fleet, device, "command")
        self._cloud.call("send-command", lambda: self._cloud.send(device, source, payload))

    def read(self, reply_key: str) -> list[StoredReply]:
        """See Replies."""
        rows = self._cloud.replies
        return self._cloud.call("read-replies", lambda: list(rows.get(reply_key, {}).values()))


class CloudHistory:
    """The server's RunStore: what MLflow keeps of a run."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def open_run(self, spec: RunSpec, details: Mapping[str, str]) -> str:
        """See RunStore."""
        return self._call(lambda: f"mlflow-{spec.run}")

    def end_run(self, run_id: str, state: str, reason: str) -> None:
        """See RunStore."""
        self._call(lambda: None)

    def log_round(
        self, run_id: str, record: RoundRecord, rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """See RunStore. The same point, written again, is one."""
        point = (record.round, int(record.finished_at * 1000) or now_ms)

        def log() -> None:
            if point not in self._cloud.logged:
                self._cloud.logged.append(point)

        self._call(log)

    def log_devices(self, run_id: str, rows: Sequence[DeviceRow]) -> None:
        """See RunStore. Nothing here reads the table."""

    def log_missing_rounds(
        self, run_id: str, records: Sequence[RoundRecord], rows: Sequence[DeviceRow], now_ms: int
    ) -> None:
        """See RunStore."""
        there = {number for number, _ in self._call(lambda: list(self._cloud.logged))}
        for record in records:
            if record.round not in there:
                self.log_round(run_id, record, rows, now_ms)

    def log_table(self, run_id: str, name: str, table: Any) -> None:
        """See RunStore."""
        self._call(lambda: None)

    def log_bytes(self, run_id: str, path: str, data: bytes) -> None:
        """See RunStore."""
        self._call(lambda: None)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """See RunStore."""
        self._call(lambda: None)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """See RunStore."""
        self._call(lambda: None)

    def log_model(self, run_id: str, app: Any, model: Any) -> str:
        """See RunStore."""
        return self._call(lambda: "m-1")

    def _call(self, effect: Callable[[], Result]) -> Result:
        result = self._cloud.call("mlflow", effect)
        if self._cloud.chance(self._cloud.weather.store_fails):
            raise ConnectionError("the answer of MLflow was lost")
        return result
