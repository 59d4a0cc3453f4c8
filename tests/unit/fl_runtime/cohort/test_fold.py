"""A cohort's fold: one mean, of updates that report the same metrics."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.phases import device_result, phase_request, update

from edge.protocol.records import Records, decode_records
from fl_runtime.cohort.fold import Fold, is_expected
from fl_runtime.run.messages import PART_BYTES, Target


def fold_of(*items: tuple[str, dict]) -> tuple[dict[str, str], list]:
    fold, codes = Fold("p", "num-examples"), {}
    for device, metrics in items:
        values = {"num-examples": 10, **metrics}
        result = device_result(device, metrics=values)
        codes[device] = fold.add(result, update(float(len(device)), **metrics)).code
    return codes, list(fold.finish())


def test_the_mean_says_whose_updates_it_holds() -> None:
    codes, (mean,) = fold_of(("a", {"loss": 1.0}), ("bbb", {"loss": 3.0}))
    assert codes == {"a": "", "bbb": ""}
    assert (mean.phase, mean.count, mean.devices) == ("p", 2, ["a", "bbb"])
    np.testing.assert_allclose(decode_records(mean.records).arrays["arrays"]["w"], 2.0)


def test_what_cannot_be_averaged_is_a_failure_of_its_device() -> None:
    codes, (mean,) = fold_of(("a", {"loss": [1.0, 2.0]}), ("b", {"loss": [1.0]}))
    assert codes == {"a": "", "b": "metrics"}
    assert mean.devices == ["a"]


def test_nothing_added_gives_nothing() -> None:
    assert list(Fold("p", "num-examples").finish()) == []


@pytest.mark.parametrize(
    ("layout", "examples", "expected"),
    [
        (None, 10, False),
        ({"loss": -1}, 10, True),
        ({"loss": 3}, 10, False),
        ({"loss": -1, "other": -1}, 10, False),
        ({"loss": -1}, 100, True),
        ({"loss": -1}, 101, False),
    ],
)
def test_only_what_earlier_rounds_had_is_folded_at_once(
    layout: dict[str, int] | None, examples: float, expected: bool
) -> None:
    result = device_result("a", metrics={"loss": 1.0}, examples=examples)
    target = Target("a", 1, "m-a", weight_limit=100.0)
    assert is_expected(phase_request("a", layout=layout), result, target) is expected


def test_arrays_that_differ_are_told_from_metrics_that_do() -> None:
    fold = Fold("p", "num-examples")
    good = device_result("a", metrics={"num-examples": 10})
    assert fold.add(good, update(1.0)).status == "ok"
    odd = Records(
        arrays={"arrays": {"w": np.zeros(4, np.float32)}}, metrics={"metrics": {"num-examples": 10}}
    )
    refused = fold.add(device_result("b", metrics={"num-examples": 10}), odd)
    assert (refused.status, refused.code) == ("error", "arrays")
    assert "differ from those of the other devices" in refused.reason


def test_the_parts_of_a_large_mean_follow_each_other() -> None:
    fold = Fold("p", "num-examples")
    array = np.arange(3 * PART_BYTES // 4, dtype=np.float32)
    large = Records(arrays={"arrays": {"w": array}}, metrics={"metrics": {"num-examples": 10}})
    assert fold.add(device_result("a", metrics={"num-examples": 10}), large).status == "ok"
    *parts, last = fold.finish()
    assert [part.offset for part in parts] == [PART_BYTES * at for at in range(len(parts))]
    assert len(parts) == 3
    whole = b"".join([*(part.data for part in parts), last.records])
    np.testing.assert_array_equal(decode_records(whole).arrays["arrays"]["w"], array)
