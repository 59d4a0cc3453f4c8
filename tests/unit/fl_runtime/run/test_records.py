"""The record of a finished round."""

from __future__ import annotations

from fakes.phases import device_result
from fakes.runs import record, row

from edge.protocol.messages import ObjectRef, Timing
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.records import (
    Comparison,
    DeviceComparison,
    PhaseStats,
    RoundSeconds,
    device_evaluations,
    format_metrics,
    summarize,
)


def phase(kind: str, seconds: float, *results: object) -> PhaseStats:
    return PhaseStats(f"00001-{kind}", kind, 1, seconds, list(results))


def test_a_rounds_time_is_split_by_the_slowest_device_of_each_phase() -> None:
    slow = device_result("a", timing=Timing(fetch=1.0, work=5.0, upload=1.0), bytes_up=10)
    fast = device_result("b", timing=Timing(work=1.0), bytes_down=7)
    late = device_result("c", status="spare", timing=Timing(work=99.0))
    failed = device_result("d", status="error", code="app-error")
    found = summarize(
        1,
        [phase("train", 8.0, slow, fast, late, failed), phase("evaluate", 2.0)],
        train={"loss": 1.0},
        evaluate={},
        server={},
    )
    assert found.seconds == RoundSeconds(total=10.0, device=5.0, transfer=2.0, overhead=3.0)
    assert (found.bytes.up, found.bytes.down) == (10, 7)
    assert (found.participants, found.failures) == (2, {"app-error": 1})
    assert [device.device for device in found.devices] == ["a", "b", "c", "d"]


def test_a_devices_row_names_its_update() -> None:
    result = device_result("a", update=ObjectRef("e" * 64, 5), metrics={"loss": 2.0}, norm=3.0)
    found = summarize(2, [phase("train", 1.0, result)], train={}, evaluate={}, server={})
    (device,) = found.devices
    assert (device.round, device.digest, device.norm) == (2, "e" * 64, 3.0)
    assert device.metrics == {"loss": 2.0}


def test_a_round_without_phases_took_no_time() -> None:
    found = summarize(1, [], train={}, evaluate={}, server={})
    assert (found.seconds, found.participants) == (RoundSeconds(), 0)


def test_evaluations_know_the_cohort_of_their_device() -> None:
    rows = [row("a", kind="evaluate"), row("b"), row("c", "error", "evaluate"), row("z")]
    cohorts = form_cohorts("f", ["a", "b", "c"], 0, {"a": {"site": "north"}})
    assert device_evaluations(record(1, *rows), cohorts) == [
        DeviceComparison(device="a", cohort="c0000", labels={"site": "north"})
    ]


def test_metrics_are_formatted_for_people() -> None:
    assert format_metrics(record(1, accuracy=0.98765, loss=2.0)) == "accuracy 0.9877  loss 2"


def test_a_comparison_falls_back_on_the_metrics_name() -> None:
    comparison = Comparison(champion=None, round=1, devices=[])
    assert (comparison.goal_for("accuracy"), comparison.goal_for("loss")) == (
        "maximize",
        "minimize",
    )
    assert Comparison(champion=None, round=1, devices=[], goal="minimize").goal_for("accuracy") == (
        "minimize"
    )
