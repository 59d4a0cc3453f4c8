"""A reply becomes a result; whatever is wrong with it becomes a reason code."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from fakes.objects import MemoryObjects
from fakes.phases import PHASE, device_result, phase_request, stored_weights, update

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef, Reply
from edge.protocol.records import Records, digest, encode_records
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.cohort.norm_filter import NormFilter
from fl_runtime.cohort.updates import (
    ReplyChecker,
    UpdateCheck,
    check_finite,
    overwritten,
    read_again,
    read_update,
)
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import update_key
from fl_runtime.run.messages import PhaseRequest, array_specs
from fl_runtime.run.ports import StoredReply

MODEL = {"w": np.zeros((2, 2), np.float32)}
GOOD = encode_records(update(1.0))
REF = ObjectRef(digest(GOOD), len(GOOD))


def records(arrays: dict | None = None, **metrics: object) -> Records:
    return Records(
        arrays={"arrays": MODEL if arrays is None else arrays},
        metrics={"metrics": {"num-examples": 5, **metrics}},
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (records({"w": np.full((2, 2), np.nan, np.float32)}), "not-finite"),
        (records({"w": np.zeros((2, 3), np.float32)}), "shape"),
        (records({"w": np.zeros((2, 2), np.float64)}), "dtype"),
        (records({"v": np.zeros((2, 2), np.float32)}), "arrays"),
        (records({}), "arrays"),
        (records(loss=float("inf")), "not-finite"),
        (records(**{"num-examples": 0}), "examples"),
        (records(**{"num-examples": -3}), "examples"),
        (records(**{"num-examples": 10**15}), "examples"),
        (records(**{"num-examples": [1, 2]}), "examples"),
        (Records(arrays={"arrays": MODEL}), "metrics"),
        (Records(arrays={"a": MODEL, "b": MODEL}, metrics={"m": {"num-examples": 1}}), "arrays"),
    ],
)
def test_an_update_that_must_not_count_is_refused_with_its_reason(
    content: Records, code: str
) -> None:
    with pytest.raises(ProtocolError) as refused:
        UpdateCheck(weighted_by="num-examples", arrays=array_specs(MODEL)).weight_of(content)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({"accuracy": 1.0}, ""),
        ({"accuracy": 1e9}, "range"),
        ({"accuracy": -0.01}, "range"),
        ({"accuracy": [0.5, 1.1]}, "range"),
        ({"loss": 0.5}, "metrics"),
        ({"accuracy": 0.5, "surprise": 1.0}, "metrics"),
    ],
)
def test_what_the_app_declares_is_held_against_metrics(metrics: dict, code: str) -> None:
    check = UpdateCheck(
        weighted_by="num-examples", arrays=None, names=["accuracy"], ranges={"accuracy": (0, 1)}
    )
    content = Records(metrics={"metrics": {"num-examples": 5, **metrics}})
    if not code:
        assert check.weight_of(content) == 5.0
        return
    with pytest.raises(ProtocolError) as refused:
        check.weight_of(content)
    assert refused.value.code == code


def test_the_largest_example_count_that_is_plausible_counts() -> None:
    check = UpdateCheck(weighted_by="num-examples", arrays=None)
    assert check.weight_of(records({}, **{"num-examples": 10**12})) == 1e12
    assert check.weight_of(records({}, **{"num-examples": 0.25})) == 0.25
    with pytest.raises(ProtocolError, match="not a plausible"):
        check.weight_of(records({}, **{"num-examples": 10**12 + 0.5}))


def test_what_is_not_checked_has_neither_norm_nor_examples() -> None:
    objects = stored_weights()
    objects.put(update_key("run-1", PHASE, "a"), GOOD)
    reading, request = reader(objects, checked=False)
    result, _ = reading.check(stored(), request.targets[0])
    assert (result.status, result.norm, result.examples) == ("ok", 0.0, 0.0)


def test_the_weight_is_the_example_count() -> None:
    check = UpdateCheck(weighted_by="num-examples", arrays=None)
    assert check.weight_of(records({"any": np.zeros(1)})) == 5.0


def reader(objects: MemoryObjects, **changes: object) -> tuple[ReplyChecker, PhaseRequest]:
    request = phase_request("a", **changes)
    return ReplyChecker(objects, request, NormFilter(objects, request), KeptUpdates()), request


def stored(**changes: object) -> StoredReply:
    fields = {"run": "run-1", "phase": PHASE, "message_id": "m-a", "status": "ok", "update": REF}
    body = msgspec.json.encode(Reply(**{**fields, **changes})).decode()
    return StoredReply("f", "a", body)


def test_a_good_reply_gives_a_result_and_its_records() -> None:
    objects = stored_weights()
    objects.put(update_key("run-1", PHASE, "a"), GOOD)
    reading, request = reader(objects)
    reply = stored()
    result, content = reading.check(reply, request.targets[0])
    assert (result.status, result.update, result.metrics) == ("ok", REF, {"num-examples": 10})
    assert result.bytes_up == len(reply.body) + len(GOOD)
    assert content is not None
    np.testing.assert_array_equal(content.arrays["arrays"]["w"], np.ones(3, np.float32))


def test_without_folding_the_records_are_not_kept() -> None:
    objects = stored_weights()
    objects.put(update_key("run-1", PHASE, "a"), GOOD)
    reading, request = reader(objects, fold=False)
    assert reading.check(stored(), request.targets[0])[1] is None


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (stored(run="run-2"), "foreign"),
        (stored(message_id="other"), "foreign"),
        (stored(update=ObjectRef(REF.digest, 2**33)), "too-large"),
        (stored(update=ObjectRef("0" * 64, len(GOOD))), "bad-digest"),
        (stored(status="error", code="app-error", update=None), "app-error"),
        (stored(status="error", code="x-made-up", update=None), "other"),
        (StoredReply("f", "a", "junk"), "malformed"),
    ],
)
def test_a_bad_reply_fails_with_its_reason(reply: StoredReply, code: str) -> None:
    objects = stored_weights()
    objects.put(update_key("run-1", PHASE, "a"), GOOD)
    reading, request = reader(objects)
    result, content = reading.check(reply, request.targets[0])
    assert (result.status, result.code, content) == ("error", code, None)


def test_an_update_that_was_never_uploaded_is_missing() -> None:
    reading, request = reader(stored_weights())
    assert reading.check(stored(), request.targets[0])[0].code == "update-missing"
    with pytest.raises(ObjectMissing):
        read_update(MemoryObjects(), request, "a", REF)


def test_an_update_that_changed_after_its_check_does_not_count() -> None:
    objects = stored_weights()
    objects.put(update_key("run-1", PHASE, "a"), encode_records(update(99.0)))
    result, content = read_again(
        objects, phase_request("a"), device_result("a", update=REF), KeptUpdates()
    )
    assert (result.code, content) == ("bad-digest", None)
    assert "changed after it had been checked" in result.reason
    assert overwritten(device_result("a"), ValueError("x")).status == "error"


@pytest.mark.parametrize("measured", [True, False])
def test_an_array_of_doubles_holds_no_value_whose_sum_could_overflow(measured: bool) -> None:
    def holding(value: float) -> Records:
        return Records(arrays={"arrays": {"w": np.array([0.0, value])}})

    check_finite(holding(1e200), measured=measured)
    with pytest.raises(ProtocolError, match="beyond 1e"):
        check_finite(holding(-1e201), measured=measured)


def test_a_metrics_name_may_be_as_long_as_mlflow_takes() -> None:
    check = UpdateCheck(weighted_by="num-examples", arrays=None)
    assert check.weight_of(records({}, **{"m" * 250: 1.0})) == 5.0
    with pytest.raises(ProtocolError, match="not a name for a metric"):
        check.weight_of(records({}, **{"m" * 251: 1.0}))


def test_every_array_is_looked_at_for_numbers_that_are_none() -> None:
    bad = {"counts": np.array([1, 2]), "w": np.array([np.nan], np.float32)}
    with pytest.raises(ProtocolError, match="'w' holds NaN"):
        check_finite(Records(arrays={"arrays": bad}))


class Broken(MemoryObjects):
    """A store whose reads fail as nobody has foreseen."""

    def get(self, *given: object) -> bytes:
        raise OSError("the disk is gone")


def test_a_fault_of_ours_when_an_update_is_read_again_costs_one_device() -> None:
    result, content = read_again(
        Broken(), phase_request("a"), device_result("a", update=REF), KeptUpdates()
    )
    assert (result.device, result.status, result.code) == ("a", "error", "not-opened")
    assert content is None


def code_of(**metrics: object) -> str:
    """Why an update with these metrics is refused; empty when it counts."""
    try:
        UpdateCheck(weighted_by="num-examples", arrays=None).weight_of(records({}, **metrics))
    except ProtocolError as refused:
        return refused.code
    return ""


def test_metrics_are_bounded_in_number_name_and_size_and_what_equals_a_bound_counts() -> None:
    assert code_of(m=1.0) == ""
    assert code_of(**{"": 1.0}) == "metrics"
    assert code_of(m=[0.0, -1e200]) == ""
    assert code_of(m=[0.0, -1.1e200]) == "not-finite"
    assert code_of(m=[0.0, float("nan")]) == "not-finite"
    assert code_of(a=[0.0] * 50_000, b=[0.0] * 49_999) == "", "with the examples 100,000"
    assert code_of(a=[0.0] * 50_000, b=[0.0] * 50_000) == "metrics"
    assert code_of(**{f"m{number}": 1.0 for number in range(999)}) == ""
    assert code_of(**{f"m{number}": 1.0 for number in range(1000)}) == "metrics"
