"""A cohort's fold: the largest group of like metrics counts."""

from __future__ import annotations

import numpy as np
from fakes.phases import device_result, update

from edge.protocol.records import decode_records
from fl_runtime.cohort.fold import MAX_GROUPS, Fold
from fl_runtime.run.messages import DeviceResult, Folded


def fold_of(*items: tuple[str, dict]) -> list:
    fold = Fold("p", "num-examples")
    for device, metrics in items:
        values = {"num-examples": 10, **metrics}
        fold.add(device_result(device, metrics=values), update(float(len(device)), **metrics))
    return list(fold.finish())


def codes(events: list) -> dict[str, str]:
    return {item.device: item.code for item in events if isinstance(item, DeviceResult)}


def test_every_device_gets_its_result_and_the_mean_comes_last() -> None:
    events = fold_of(("a", {"loss": 1.0}), ("bbb", {"loss": 3.0}))
    assert codes(events) == {"a": "", "bbb": ""}
    last = events[-1]
    assert isinstance(last, Folded)
    assert (last.phase, last.count) == ("p", 2)
    np.testing.assert_allclose(decode_records(last.records).arrays["arrays"]["w"], 2.0)


def test_a_device_with_metrics_of_its_own_does_not_count_even_if_it_is_first() -> None:
    events = fold_of(("x", {"strange": 1.0}), ("a", {"loss": 1.0}), ("b", {"loss": 1.0}))
    assert codes(events) == {"x": "metrics", "a": "", "b": ""}
    assert events[-1].count == 2


def test_a_list_of_another_length_does_not_count() -> None:
    events = fold_of(("a", {"loss": [1.0, 2.0]}), ("b", {"loss": [1.0]}))
    assert codes(events) == {"a": "", "b": "metrics"}


def test_the_number_of_groups_is_bounded() -> None:
    events = fold_of(*[(f"d{index}", {f"m{index}": 1.0}) for index in range(MAX_GROUPS + 2)])
    assert list(codes(events).values()).count("metrics") == MAX_GROUPS + 1


def test_nothing_added_gives_nothing() -> None:
    assert list(Fold("p", "num-examples").finish()) == []
