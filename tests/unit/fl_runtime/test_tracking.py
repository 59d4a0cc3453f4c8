"""MLflow away for a while: the run goes on, and what was to be logged is logged later, in order,
once.
"""

from __future__ import annotations

import threading

import pytest
from fakes.runs import record, spec

from fl_runtime.run.errors import RunFailed
from fl_runtime.server.telemetry import tracking
from fl_runtime.server.telemetry.tracking import MlflowTracker


class Store:
    """MLflow as a list of what it took; each call fails a number of times, before or after it took
    effect.
    """

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.points: dict[tuple[int, int], str] = {}
        self.order: list[int] = []

    def fail(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("MLflow is away")

    def open_run(self, spec: object, details: object) -> str:
        self.fail()
        return "m1"

    def log_round(self, run_id: str, record, rows, now: int) -> None:
        self.fail()
        if (record.round, now) not in self.points:
            self.order.append(record.round)
        self.points[(record.round, now)] = run_id
        self.fail()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store(7)
    monkeypatch.setattr(tracking, "open_run", made.open_run)
    monkeypatch.setattr(tracking, "_log_round", made.log_round)
    return made


def test_rounds_wait_for_mlflow_and_are_logged_in_order_once(store: Store) -> None:
    pauses: list[float] = []
    tracker = MlflowTracker(spec(), {}, sleep=pauses.append)
    for number in range(1, 6):
        tracker.log_round(record(number))
    tracker.flush(60.0)
    assert store.order == [1, 2, 3, 4, 5]
    assert len(pauses) == 7, "each failure is followed by a pause"
    assert pauses == sorted(pauses) or max(pauses) <= tracking.RETRY_SECONDS[1]


def test_training_does_not_wait_for_mlflow(store: Store) -> None:
    gate = threading.Event()
    tracker = MlflowTracker(spec(), {}, sleep=lambda seconds: gate.wait(10) and None)
    tracker.log_round(record(1))  # returns though MLflow is away
    assert store.order == []
    gate.set()
    tracker.flush(60.0)
    assert store.order == [1]


def test_an_mlflow_that_stays_away_ends_the_run_with_the_way_out(store: Store) -> None:
    store.left = 10**6
    now = [0.0]
    tracker = MlflowTracker(
        spec(), {}, sleep=lambda seconds: now.__setitem__(0, now[0] + seconds), clock=lambda: now[0]
    )
    tracker.log_round(record(1))
    with pytest.raises(
        RunFailed, match=r"MLflow is away.*the rounds are kept, and `mledgeops run --resume`"
    ):
        tracker.flush(30.0)


def test_an_apps_own_fault_is_not_waited_for(store: Store) -> None:
    store.left = 0
    tracker = MlflowTracker(spec(), {})

    def broken() -> None:
        raise RunFailed("predict", "The app's predict raised")

    tracker.submit(broken)
    with pytest.raises(RunFailed, match="predict raised"):
        tracker.flush(30.0)
