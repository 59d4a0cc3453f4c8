"""What an approver sees of a candidate: the comparison on the devices' data, the evidence, the
card, the pre-checks.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import DEVICES, GOOD, grid_of, initial, spec, training_device
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from sagemaker.model_card import (
    AdditionalInformation,
    EvaluationJob,
    IntendedUses,
    ModelOverview,
    TrainingDetails,
)
from support.paths import APPS

from edge.protocol.messages import Heartbeat, Moments, Reply, Served, Serving
from edge.protocol.records import Records, encode_records
from edge.training.app_bundle import load_app
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import app_key, champion_key, cohorts_key, model_key, round_key, spec_key
from fl_runtime.run.records import Comparison, RoundRecord
from fl_runtime.run.spec import Champion, RunSpec
from fl_runtime.server.grid.flower_compat import round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.champion import ChampionComparison, read_champion
from fl_runtime.server.rounds.round_loop import RoundLoop
from registry.evidence import charts
from registry.evidence.card import MODEL_CARD_LIMIT, model_card, page
from registry.evidence.collect import collect
from registry.evidence.drift import drift_of, shift
from registry.evidence.model import Evidence, worse_by
from registry.evidence.prechecks import check, failed
from registry.model_version import (
    DIGEST_TAG,
    METRIC,
    MLFLOW_RUN,
    PENDING,
    RUN_TAG,
    SCORE_TAG,
    Package,
)
from registry.policy import PrecheckPolicy

CHAMPION = Champion(
    model_version="x/1", digest="c" * 64, app="a" * 64, key="runs/run-0/model/model.safetensors"
)
LABELS = {
    device: {"site": "north" if index < 4 else "south"} for index, device in enumerate(DEVICES)
}


def run(
    comparing: ChampionComparison, devices: dict = GOOD, **changes: Any
) -> tuple[RunSpec, list[RoundRecord], IoTGrid]:
    """A run over in-memory devices that ends with the comparison."""
    the_spec, records = spec(**{"num_rounds": 2, **changes}), []
    random.seed(0)
    grid = grid_of(devices, the_spec)
    for cohort in grid.phases.cohorts:
        cohort.members[:] = [
            msgspec.structs.replace(member, labels=LABELS[member.device])
            for member in cohort.members
        ]
    loop = RoundLoop(
        the_spec,
        lambda record, checkpoint: records.append(record),
        lambda: False,
        comparison=comparing,
    )
    with round_loop(IoTGrid, loop):
        FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=2)
    return the_spec, records, grid


def weights(value: float) -> dict:
    return {"w": np.full(5, value, np.float32), "n": np.array(3, np.int64)}


def compared(
    champion: float = 9.0, devices: dict = GOOD
) -> tuple[Comparison, RunSpec, list[RoundRecord]]:
    comparing = ChampionComparison(lambda: (CHAMPION, weights(champion)))
    the_spec, records, _ = run(comparing, devices)
    assert comparing.result is not None
    return comparing.result, the_spec, records


def evidence(
    champion: float = 9.0,
    devices: dict = GOOD,
    heartbeats: Sequence = (),
    own_rounds: bool = False,
    goal: Any = "",
) -> Evidence:
    comparison, the_spec, records = compared(champion, devices)
    if own_rounds:
        comparison = Comparison(
            champion=None, round=0, devices=[], reason="The app runs its own rounds."
        )
    comparison = msgspec.structs.replace(comparison, goal=goal)
    objects, digits = MemoryObjects(), load_app(APPS / "digits")
    objects.put(spec_key("run-1"), msgspec.json.encode(the_spec))
    objects.put(cohorts_key("run-1"), msgspec.json.encode(form_cohorts("f", DEVICES, 2, LABELS)))
    objects.put(model_key("run-1", "comparison.json"), msgspec.json.encode(comparison))
    objects.put(app_key(the_spec.app), digits.bundle())
    for record in records:
        objects.put(round_key("run-1", record.round), msgspec.json.encode(record))
    said = {
        RUN_TAG: "run-1",
        SCORE_TAG: str(-float(records[-1].evaluate["loss"])),
        DIGEST_TAG: "d" * 64,
        METRIC: "loss",
        MLFLOW_RUN: "m" * 32,
    }
    package = Package(
        arn="arn:package",
        group="x",
        version=2,
        approval=PENDING,
        metadata=said,
        model_data="s3://b/k",
    )
    return collect(package, "x/2", objects, lambda _: heartbeats)


def test_both_models_are_evaluated_on_the_same_devices_with_the_same_data() -> None:
    comparison, _, records = compared(champion=9.0)
    assert {row.device for row in comparison.devices} == set(DEVICES)
    for row in comparison.devices:
        assert row.champion["loss"] == pytest.approx(9.0 - DEVICES.index(row.device))
        last = next(
            r for r in records[-1].devices if r.device == row.device and r.kind == "evaluate"
        )
        assert row.candidate == last.metrics
    assert comparison.round == 2
    assert comparison.bytes_down >= 0


def test_the_comparison_changes_nothing_of_the_run() -> None:
    results = []
    for comparing in (None, ChampionComparison(lambda: (CHAMPION, weights(9.0)))):
        the_spec = spec(num_rounds=3)
        random.seed(0)
        loop = RoundLoop(the_spec, lambda *_: None, lambda: False, comparison=comparing)
        with round_loop(IoTGrid, loop):
            results.append(
                FedAvg()
                .start(grid=grid_of(GOOD, the_spec), initial_arrays=initial(), num_rounds=3)
                .arrays
            )
    assert isinstance(results[0], ArrayRecord)
    assert all(
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(results[0].values(), results[1].values(), strict=True)
    )


def test_without_a_champion_or_with_one_of_another_layout_the_reason_is_said() -> None:
    def lost() -> None:
        raise RunFailed(
            "champion", "The weights of the champion x/1 in S3 are not those that were approved."
        )

    for read, text in (
        (lambda: None, "no earlier version"),
        (lambda: (CHAMPION, {"other": np.zeros(2)}), "another layout"),
        (lost, "not those that were approved"),
    ):
        comparing = ChampionComparison(read)
        run(comparing)
        assert comparing.result is not None
        assert text in comparing.result.reason
        assert len(comparing.result.devices) == len(DEVICES)


def test_a_champion_that_was_changed_in_the_bucket_is_not_compared() -> None:
    objects = MemoryObjects()
    objects.put(champion_key("run-1"), b"null")
    assert read_champion(objects, "run-1") is None
    objects.put(champion_key("run-1"), msgspec.json.encode(CHAMPION))
    with pytest.raises(RunFailed, match="cannot be read"):
        read_champion(objects, "run-1")
    objects.put(CHAMPION.key, encode_records(Records(arrays={"arrays": weights(1.0)})))
    with pytest.raises(RunFailed, match="not those that were approved"):
        read_champion(objects, "run-1")


def test_a_device_that_cannot_evaluate_the_champion_counts_for_neither() -> None:
    def without(command: Any, content: Records) -> Records | Reply:
        if command.kind == "evaluate" and float(content.arrays["arrays"]["w"][0]) == 9.0:
            return Reply(
                run=command.run,
                phase=command.phase,
                message_id=command.message_id,
                status="error",
                code="app-error",
                reason="too old",
            )
        return training_device("d0")(command, content)

    found = evidence(devices={**GOOD, "d0": without})
    assert found.compared.devices == 5
    assert "d0" not in {device.device for device in found.compared.worst}


def test_the_evidence_names_the_worst_group_and_the_worst_device() -> None:
    """A champion at 4.2 is nearly perfect for device d4: the candidate, a mean, is worse there."""
    found = evidence(champion=4.2)
    assert {(g.kind, g.name) for g in found.compared.groups} >= {
        ("site", "north"),
        ("site", "south"),
        ("cohort", "c0000"),
    }
    assert found.compared.worst[0].device == "d4"
    worst = found.compared.groups[0]
    assert worst.worse_by == max(group.worse_by for group in found.compared.groups)
    south = next(group for group in found.compared.groups if group.name == "south")
    assert south.champion == pytest.approx((0.2 * 50 + 0.8 * 60) / 110)
    assert found.compared.better_on == sum(device.worse_by < 0 for device in found.compared.worst)
    assert found.participation.ever == found.participation.devices == 6
    assert found.coverage.examples == sum(10 * (i + 1) for i in range(6))
    assert len(found.lineage.updates) == 6
    assert found.licence == "Apache-2.0"


def test_an_app_that_runs_its_own_rounds_has_its_evidence_too() -> None:
    found = evidence(own_rounds=True)
    assert (
        found.compared.champion,
        found.compared.devices,
        found.compared.round,
        found.lineage.rounds,
    ) == ("", 6, 2, 2)
    assert {(g.kind, g.name) for g in found.compared.groups} >= {
        ("site", "north"),
        ("cohort", "c0000"),
    }
    assert "own rounds" in page(found, check(found, PrecheckPolicy()))


def test_what_is_better_is_what_the_run_said_not_what_a_number_looks_like() -> None:
    found = evidence(goal="maximize")
    assert (found.goal, found.compared.worse_by > 0) == ("maximize", True)
    assert evidence().goal == "minimize"


def test_updates_that_were_refused_are_counted_and_their_senders_named() -> None:
    def poisoned(command: Any, content: Records) -> Records:
        answer = training_device("d1")(command, content)
        bad = {**answer.arrays.get("arrays", {}), "w": np.full(5, np.nan, np.float32)}
        return Records(arrays={"arrays": bad}, metrics=answer.metrics) if answer.arrays else answer

    found = evidence(devices={**GOOD, "d1": poisoned})
    assert found.participation.rejected == {"not-finite": 2}
    assert found.participation.offenders == {"d1": 2}
    assert found.participation.absent == ["d1"]


@pytest.mark.parametrize(
    ("gates", "failing"),
    [
        ({}, []),
        ({"better_by": 0.99}, ["better"]),
        ({"participants": 7}, ["participants"]),
        ({"group_worse_by": 0.0}, []),
    ],
)
def test_pre_checks_say_what_they_hold_against_a_candidate(gates: dict, failing: list[str]) -> None:
    checks = check(evidence(champion=9.0), PrecheckPolicy(**gates))
    assert [item.name for item in checks if not item.passed] == failing
    assert [item.name for item in checks] == [
        "better",
        "groups",
        "participants",
        "participation",
        "rejected",
        "drift",
    ]
    assert all(name in failed(checks) for name in failing)


def test_a_group_that_loses_fails_the_candidate_although_the_mean_is_better() -> None:
    found = evidence(champion=4.0)
    group = msgspec.structs.replace(found.compared.groups[0], worse_by=0.3)
    better = msgspec.structs.replace(
        found, compared=msgspec.structs.replace(found.compared, worse_by=-0.1, groups=[group])
    )
    assert [item.name for item in check(better, PrecheckPolicy()) if not item.passed] == ["groups"]
    assert "the worst group is" in failed(check(better, PrecheckPolicy()))
    assert not failed(check(better, PrecheckPolicy(group_devices=7)))


def test_a_champion_that_could_not_be_compared_fails_the_check() -> None:
    found = evidence()
    lost = msgspec.structs.replace(
        found.compared, candidate=None, champion_value=None, reason="another layout"
    )
    assert "another layout" in failed(
        check(msgspec.structs.replace(found, compared=lost), PrecheckPolicy())
    )


def serving(mean: float, std: float = 1.0, count: int = 500) -> Serving:
    moved = Served(name="wind", first=Moments(500, 5.0, 1.0), recent=Moments(count, mean, std))
    return Serving(
        predictions=1000,
        inputs=[
            moved,
            Served(
                name="temperature", first=Moments(500, 1.0, 1.0), recent=Moments(count, 1.0, 1.0)
            ),
        ],
    )


def test_drift_is_the_median_devices_largest_shift() -> None:
    found = drift_of(
        {"a": serving(5.0), "b": serving(7.0), "c": serving(8.0), "new": serving(50.0, count=3)}
    )
    assert (found.devices, found.drifted, found.score) == (3, 2, 2.0)
    assert [item.feature for item in found.features] == ["wind", "temperature"]
    assert drift_of({}).devices == 0


def test_an_input_that_was_constant_drifts_when_it_is_another_constant_and_not_when_it_is_seldom_set() -> (
    None
):
    constant = Moments(500, 0.0, 0.0)
    seldom = Moments(500, 0.01, 0.0995)
    assert shift(constant, seldom) < 0.2
    assert shift(seldom, constant) < 0.2
    assert shift(constant, Moments(500, 0.9, 0.0)) == 10.0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(-1e6, 1e6))
def test_a_shift_is_a_number_between_nothing_and_far(
    mean: float, std: float, recent: float
) -> None:
    assert 0 <= shift(Moments(100, mean, std), Moments(100, recent, 1.0)) <= 10
    assert shift(Moments(100, mean, std), Moments(100, mean, 0.0)) == 0


def status(device: str, model: str, moved: Serving) -> DeviceStatus:
    beat = Heartbeat(state="idle", model=model, serving=moved)
    return DeviceStatus(fleet="f", device=device, last_seen=0.0, heartbeat=beat)


def test_drift_comes_from_heartbeats_of_devices_that_use_the_champion() -> None:
    devices = [
        status("d0", "x/1", serving(9.0)),
        status("d1", "x/0", serving(5.0)),
        DeviceStatus(fleet="f", device="d2", last_seen=0.0, heartbeat=None),
    ]
    found = evidence(heartbeats=devices)
    assert (found.drift.devices, found.drift.score) == (1, 4.0)
    assert "moved by 4 standard deviations" in failed(check(found, PrecheckPolicy()))


def test_the_page_holds_all_of_it_and_escapes_what_others_have_named() -> None:
    found = evidence(champion=4.0)
    nasty = "<script>alert(1)</script>"
    device = msgspec.structs.replace(found.compared.worst[0], device=nasty)
    group = msgspec.structs.replace(found.compared.groups[0], name=nasty)
    compared_ = msgspec.structs.replace(found.compared, worst=[device], groups=[group])
    html = page(
        msgspec.structs.replace(found, compared=compared_, description=nasty),
        check(found, PrecheckPolicy()),
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for text in (
        "Pre-checks",
        "Against the champion",
        "Participation",
        "Lineage",
        "Licence",
        found.lineage.model_digest,
        "x/1",
    ):
        assert text in html
    assert html.count("<svg") >= 5
    assert "http" not in re.sub(r"<svg[^>]*>", "", html)  # nothing is loaded from elsewhere


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(allow_nan=True, allow_infinity=True)), max_size=20
    )
)
def test_charts_are_well_formed_whatever_the_numbers(points: list[tuple[int, float]]) -> None:
    values = [value for _, value in points]
    for text in (
        charts.lines([(float(x), y) for x, y in points]),
        charts.bars([(f"<{x}&", y) for x, y in points], limit=1.0),
        charts.histogram(values),
        charts.pairs([(str(x), y, None) for x, y in points]),
        charts.columns([x for x, _ in points], [x for x, _ in points]),
    ):
        ElementTree.fromstring(text)  # our own
        assert "nan" not in text
        assert "inf" not in text


def test_the_model_card_is_sagemakers() -> None:
    found = evidence(champion=4.0)
    card = model_card(found, check(found, PrecheckPolicy()), "s3://bucket/card.html")
    assert len(json.dumps(card)) <= MODEL_CARD_LIMIT
    kinds = {
        "model_overview": ModelOverview,
        "intended_uses": IntendedUses,
        "training_details": TrainingDetails,
        "additional_information": AdditionalInformation,
    }
    for part, kind in kinds.items():  # the SDK's own classes refuse what the schema does not know
        kind(**card[part])
    job = EvaluationJob(**card["evaluation_details"][0])
    assert {group["name"] for group in card["evaluation_details"][0]["metric_groups"]} == {
        "devices",
        "groups",
        "rounds",
    }
    assert job.name == "Federated evaluation on the devices"


@pytest.mark.parametrize(
    ("candidate", "champion", "goal", "worse"),
    [
        (1.1, 1.0, "minimize", 0.1),
        (0.9, 1.0, "maximize", 0.1),
        (0.5, 0.0, "minimize", 0.5),
        (-2.0, -1.0, "minimize", -1.0),
    ],
)
def test_worse_is_a_share_of_the_champions_metric(
    candidate: float, champion: float, goal: Any, worse: float
) -> None:
    assert worse_by(candidate, champion, goal) == pytest.approx(worse)
