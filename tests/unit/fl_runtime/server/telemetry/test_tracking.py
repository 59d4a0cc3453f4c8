"""MLflow away for a while: the run goes on, and the history is written later, in order, once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import sqlalchemy
from fakes.mlflow_client import MemoryMlflow
from fakes.run_store import MemoryRunStore
from mlflow.utils.validation import _validate_metric_name

from fl_runtime.run.concurrency import THREADS
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import DeviceRow, RoundBytes, RoundRecord, RoundSeconds
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.telemetry import retry_queue
from fl_runtime.server.telemetry.mlflow_store import MlflowStore, metrics_of
from fl_runtime.server.telemetry.retry_queue import RetryQueue
from fl_runtime.server.telemetry.tracking import RunTracker

SPEC = RunSpec(run="run-1", fleet="f", app="a" * 64, app_name="x", num_rounds=5, min_devices=1)


def record(number: int, **evaluate: float) -> RoundRecord:
    row = DeviceRow(
        round=number,
        phase="p",
        kind="train",
        device="d0",
        status="ok",
        code="",
        reason="",
        digest="",
        seconds_fetch=0.0,
        seconds_work=0.0,
        seconds_upload=0.0,
        bytes_up=1,
        bytes_down=2,
        metrics={"loss": 1.0},
    )
    return RoundRecord(
        round=number,
        train={"loss": 2.0},
        evaluate=evaluate,
        server={},
        participants=1,
        failures={"norm": 1},
        seconds=RoundSeconds(total=1.5),
        bytes=RoundBytes(10, 20),
        devices=[row],
    )


class FlakyStore:
    """A store that fails a number of calls, before or after they took effect."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.points: dict[tuple[int, int], str] = {}
        self.order: list[int] = []

    def fail(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("MLflow is away")

    def open_run(self, spec, details) -> str:
        self.fail()
        return "m1"

    def log_round(self, run_id: str, record, rows, now_ms: int) -> None:
        self.fail()
        if (record.round, now_ms) not in self.points:
            self.order.append(record.round)
        self.points[(record.round, now_ms)] = run_id
        self.fail()


def test_rounds_wait_for_mlflow_and_are_logged_in_order_once() -> None:
    store, pauses = FlakyStore(7), []
    tracker = RunTracker(store, SPEC, {}, sleep=pauses.append)
    for number in range(1, 6):
        tracker.log_round(record(number))
    tracker.flush(60.0)
    assert store.order == [1, 2, 3, 4, 5]
    assert len(pauses) == 7, "each failure is followed by a pause"
    assert max(pauses) <= retry_queue.RETRY_SECONDS[1]


def test_training_does_not_wait_for_mlflow() -> None:
    store, back = FlakyStore(7), threading.Event()
    tracker = RunTracker(store, SPEC, {}, sleep=lambda seconds: back.wait(10) and None)
    tracker.log_round(record(1))  # returns though MLflow is away
    assert store.order == []
    back.set()
    tracker.flush(60.0)
    assert store.order == [1]


def test_an_mlflow_that_stays_away_ends_the_run_with_the_way_out() -> None:
    now = [0.0]
    queue = RetryQueue(
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
        clock=lambda: now[0],
        executor=THREADS.background("mlflow"),
    )
    queue.submit(FlakyStore(10**6).fail)
    with pytest.raises(
        RunFailed, match=r"MLflow is away.*the rounds are kept, and `mledgeops run --resume`"
    ):
        queue.flush(30.0)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_damaged_database_ends_the_run_at_once_and_a_locked_one_is_waited_for(
    tmp_path: Path, *, damaged: bool
) -> None:
    """With the errors that SQLAlchemy, which MLflow uses, makes of the driver's."""
    file, pauses = tmp_path / "mlflow.db", []
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", connect_args={"timeout": 0.0})
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    if damaged:
        file.write_bytes(b"no database" * 500)
    else:
        holder.execute("BEGIN EXCLUSIVE")

    def write() -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE t (x INT)"))

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        holder.execute("ROLLBACK")

    queue = RetryQueue(sleep=sleep, clock=lambda: 0.0, executor=THREADS.background("mlflow"))
    queue.submit(write)
    try:
        if damaged:
            with pytest.raises(
                RunFailed, match=r"is damaged.*not a database.*run --resume`.*whole"
            ):
                queue.flush()
        else:
            queue.flush()
    finally:
        holder.close()
        engine.dispose()
    assert len(pauses) == (0 if damaged else 1)


def test_an_apps_own_fault_is_not_retried() -> None:
    queue = RetryQueue(
        sleep=lambda _: None, clock=lambda: 0.0, executor=THREADS.background("mlflow")
    )

    def broken() -> None:
        raise RunFailed("predict", "The app's predict raised")

    queue.submit(broken)
    with pytest.raises(RunFailed, match="predict raised"):
        queue.flush(30.0)


def test_a_round_in_mlflow_has_its_metrics_and_the_table_of_all_devices() -> None:
    client = MemoryMlflow()
    tracker = RunTracker(MlflowStore(lambda: client, None), SPEC, {}, now=lambda: 7.0)
    tracker.log_round(record(1, accuracy=0.5))
    tracker.log_round(record(2, accuracy=0.75))
    tracker.log_table("losses", {"step": [1, 2], "loss": [0.5, 0.25]})
    tracker.log_bytes("evaluation.json", b"{}")
    tracker.set_tag("key", "value")
    tracker.flush()
    tracker.end("Stopped", "The pipeline was stopped.")
    run = client.runs[tracker.run_id]
    points = {(p.key, p.step): (p.value, p.timestamp) for p in run.metrics}
    assert points[("evaluate.accuracy", 2)] == (0.75, 7000)
    assert len(run.artifacts["devices.json"]["data"]) == 2
    assert run.artifacts["tables/losses.json"] == {
        "columns": ["step", "loss"],
        "data": [[1, 0.5], [2, 0.25]],
    }
    assert run.artifacts["evaluation.json"] == b"{}"
    assert (run.tags["key"], run.status) == ("value", "KILLED")


def test_the_table_of_many_devices_is_not_written_after_each_round_and_is_whole_at_the_end() -> (
    None
):
    written: list[int] = []

    class Store(MemoryRunStore):
        def log_devices(self, run_id: str, rows: Sequence[DeviceRow]) -> None:
            super().log_devices(run_id, rows)
            written.append(len(rows))

    store, rounds, rows = Store(), 40, 200
    tracker = RunTracker(store, SPEC, {})
    for number in range(1, rounds + 1):
        one = record(number)
        tracker.log_round(msgspec.structs.replace(one, devices=one.devices[:1] * rows))
    tracker.complete_devices()
    tracker.complete_devices()  # nothing is left to write
    tracker.flush()
    assert len(store.devices) == rounds * rows
    assert sum(written) < 7 * rounds * rows  # each round's would be 20 times the rows
    assert written[:5] == [rows * number for number in range(1, 6)]  # a short table, each round


def test_a_server_that_starts_again_logs_only_what_is_missing() -> None:
    client = MemoryMlflow()
    first = RunTracker(MlflowStore(lambda: client, None), SPEC, {})
    first.log_round(record(1))
    first.flush()
    second = RunTracker(MlflowStore(lambda: client, None), SPEC, {})
    second.resume([record(1), record(2)])
    second.flush()
    assert second.run_id == first.run_id
    steps = [p.step for p in client.runs[first.run_id].metrics if p.key == "participants"]
    assert steps == [1, 2]


def test_a_server_that_was_only_paused_logs_the_same_points_as_its_successor() -> None:
    client, done = MemoryMlflow(), msgspec.structs.replace(record(1), finished_at=5.0)
    paused = RunTracker(MlflowStore(lambda: client, None), SPEC, {}, now=lambda: 6.0)
    successor = RunTracker(MlflowStore(lambda: client, None), SPEC, {}, now=lambda: 40.0)
    successor.resume([done])
    successor.flush()
    paused.log_round(done)
    paused.flush()
    points = [p for p in client.runs[paused.run_id].metrics if p.key == "participants"]
    assert {(p.step, p.timestamp, p.value) for p in points} == {(1, 5000, 1)}


def test_metrics_keep_their_names_in_mlflow() -> None:
    assert metrics_of(record(3, accuracy=0.5)) == {
        "participants": 1,
        "bytes.up": 10,
        "bytes.down": 20,
        "seconds.total": 1.5,
        "seconds.device": 0.0,
        "seconds.transfer": 0.0,
        "seconds.overhead": 0.0,
        "failures.norm": 1,
        "train.loss": 2.0,
        "evaluate.accuracy": 0.5,
    }


def test_metrics_get_names_that_mlflow_takes() -> None:
    names = ["acc@1", "loss (%)", "a//b", "x/", "../up", "n" * 300, "plain"]
    named = msgspec.structs.replace(record(1), train=dict.fromkeys(names, 0.5))
    found = [name for name in metrics_of(named) if name.startswith("train.")]
    assert len(found) == len(names)
    for name in found:
        _validate_metric_name(name)
    assert {"train.acc_1", "train.plain"} <= set(found)
