"""A run's rounds, folded: who took part, what failed, what it cost."""

from __future__ import annotations

import msgspec
import pytest
from fakes.evidence import DEVICES, LABELS, comparison, device_row, round_record
from fakes.objects import MemoryObjects

from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.keys import round_key
from fl_runtime.run.spec import RunSpec
from registry.evidence.history import RunHistory, read_rounds

SPEC = RunSpec(run="run-1", fleet="f", app="a" * 64, app_name="x", num_rounds=20, min_devices=1)
COHORTS = form_cohorts("f", DEVICES, 2, LABELS)


def test_updates_that_were_rejected_are_counted_and_their_senders_named() -> None:
    history = RunHistory(SPEC, COHORTS, final_round=2)
    for number in (1, 2):
        rows = [device_row(name) for name in DEVICES if name not in ("d1", "d2", "d3")]
        rows.append(device_row("d1", status="error", code="not-finite"))
        rows.append(device_row("d2", status="error", code="no-reply"))
        rows.append(device_row("d3", status="spare"))
        history.add(round_record(number, rows))
    found = history.participation()
    assert found.rejected == {"not-finite": 2}
    assert found.offenders == {"d1": 2}
    assert found.failures == {"not-finite": 2, "no-reply": 2}
    assert found.absent == ["d1", "d2", "d3"]
    assert (found.ever, found.devices, found.updates) == (3, 6, 8)
    assert (found.by_round, found.wanted_by_round) == ([3, 3], [5, 5]), "a spare one is not wanted"


def test_curves_hold_every_metric_but_the_weights() -> None:
    history = RunHistory(SPEC, COHORTS, final_round=2)
    for number in (1, 2):
        history.add(round_record(number))
    assert history.curves["evaluate.loss"] == [(1, 2.0), (2, 1.0)]
    assert set(history.curves) == {"evaluate.loss", "train.loss", "seconds"}


def test_the_final_round_is_the_one_that_made_the_model() -> None:
    history = RunHistory(SPEC, COHORTS, final_round=2)
    for number in (1, 2, 3):
        history.add(round_record(number))
    assert history.final is not None and history.final.round == 2
    last = RunHistory(SPEC, COHORTS, final_round=0)
    for number in (1, 2, 3):
        last.add(round_record(number))
    assert last.final is not None and last.final.round == 3


def test_costs_are_those_of_all_rounds_and_of_the_comparison() -> None:
    history = RunHistory(SPEC, COHORTS, final_round=2)
    for number in (1, 2):
        history.add(round_record(number))
    alone = history.costs(comparison(seconds=0.0, devices=[]))
    both = history.costs(comparison(seconds=5.0, bytes_up=1, bytes_down=2))
    assert (alone.seconds, alone.bytes_up, alone.device_seconds) == (4.0, 1200, 24.0)
    assert (both.seconds, both.bytes_up, both.bytes_down) == (9.0, 1201, 2402)
    assert both.usd > alone.usd > 0


@pytest.mark.parametrize("rounds", [0, 1, 8, 9, 20])
def test_rounds_are_read_in_order_until_the_run_ended(rounds: int) -> None:
    objects = MemoryObjects()
    for number in range(1, rounds + 1):
        objects.put(round_key("run-1", number), msgspec.json.encode(round_record(number)))
    found = [record.round for record in read_rounds(objects, SPEC)]
    assert found == list(range(1, rounds + 1))
