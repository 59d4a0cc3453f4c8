"""When a missing metric ends a run, and when it may still come."""

from __future__ import annotations

import pytest
from fakes.runs import record, row
from flwr.serverapp.strategy import FedAvg
from msgspec import structs

from fl_runtime.run.errors import RunFailed
from fl_runtime.server.rounds.early_checks import EarlyChecks

SILENT = structs.replace(row("d0", "error", "evaluate"), code="no-reply")


@pytest.mark.parametrize(
    ("changes", "central"),
    [
        ({"devices": [SILENT]}, False),  # they may answer in the next round
        ({"devices": [row("d0")]}, False),  # the strategy may evaluate later
        ({"evaluate": {"loss": 1.0}}, True),  # evaluate_fn has not reported yet
        ({"evaluate": {"f1": None}}, False),  # infinite in this round
    ],
)
def test_a_round_that_leaves_it_open_ends_nothing(changes: dict, central: bool) -> None:
    checks = EarlyChecks("f1")
    done = structs.replace(record(1), **changes)
    checks.add(done)
    checks.check(done, FedAvg(), central=central)


def test_a_metric_that_an_earlier_round_had_is_not_missed() -> None:
    checks, missing = EarlyChecks("f1"), record(2, loss=1.0)
    checks.add(record(1, f1=0.5))
    checks.add(missing)
    checks.check(missing, FedAvg(), central=False)
    fresh = EarlyChecks("f1")
    fresh.add(missing)
    with pytest.raises(RunFailed, match="no metric 'f1' in round 2; they report loss"):
        fresh.check(missing, FedAvg(), central=False)
    EarlyChecks("f1", starts_again=lambda: True).check(missing, FedAvg(), central=False)


def test_where_nobody_evaluates_trainings_metrics_must_have_it() -> None:
    checks, done = EarlyChecks("f1"), structs.replace(record(1), train={"loss": 1.0})
    with pytest.raises(RunFailed, match="no metric 'f1'"):
        checks.check(done, FedAvg(fraction_evaluate=0.0), central=False)
    checks.check(done, FedAvg(), central=False)
