"""Sums, norms and checks in blocks are those over whole arrays."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from edge.protocol.records import ArrayMap, Records, decode_records, encode_records
from fl_runtime.aggregation.blocks import BLOCK, add_weighted, change_norm, is_finite
from fl_runtime.aggregation.mapped import is_mapped, map_file

LONG = 3 * BLOCK + 5
"""Elements that fill no whole number of blocks."""


def noise(seed: int, dtype: str = "f4", scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(LONG) * scale).astype(dtype)


def mapped(arrays: ArrayMap) -> ArrayMap:
    with tempfile.TemporaryFile() as file:
        file.write(encode_records(Records(arrays={"a": arrays})))
        return decode_records(map_file(file)).arrays["a"]


def test_the_norm_is_over_all_float_arrays_of_both() -> None:
    before = {"a": np.zeros(2, np.float32), "n": np.array(0)}
    after = {"a": np.array([3, 0], np.float32), "n": np.array(99), "new": np.ones(5)}
    assert change_norm(before, after) == 3.0
    assert change_norm(before, {**after, "a": np.array([3, 4], np.float32)}) == 5.0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_norm_is_that_of_float64_at_any_scale(dtype: str, scale: float) -> None:
    if dtype == "f2":
        scale = 1.0
    before, after = noise(1, dtype, scale), noise(2, dtype, scale)
    expected = np.linalg.norm(after.astype(np.float64) - before.astype(np.float64))
    assert change_norm({"w": before}, {"w": after}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, BLOCK, LONG - 1])
def test_one_bad_value_shows_in_norm_and_check(bad: float, at: int) -> None:
    good = noise(1)
    values = good.copy()
    values[at] = bad
    assert is_finite(good)
    assert not is_finite(values)
    assert not np.isfinite(change_norm({"w": good}, {"w": values}))


def test_values_whose_squares_overflow_are_finite_unless_beyond_the_limit() -> None:
    assert is_finite(np.full(5, 3e38, np.float32))
    assert change_norm({"w": np.zeros(1, np.float32)}, {"w": np.float32([3e38])}) == pytest.approx(
        3e38
    )
    assert is_finite(np.full(5, 1e200), 1e200)
    assert not is_finite(np.full(5, 1.1e200), 1e200)
    assert is_finite(np.empty(0, np.float32))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
def test_weighted_sums_are_those_of_float64(dtype: str) -> None:
    parts = [(noise(seed).astype(dtype), weight) for seed, weight in ((1, 3.0), (2, 0.5), (3, 7.0))]
    total = np.ones(LONG)
    add_weighted(total, parts)
    expected = np.ones(LONG)
    for array, weight in parts:
        expected += array.astype(np.float64) * weight
    np.testing.assert_array_equal(total, expected)


def test_arrays_in_a_file_give_what_arrays_in_memory_give() -> None:
    before, after = {"w": noise(1), "n": np.array(3)}, {"w": noise(2), "n": np.array(4)}
    a, b = mapped(before), mapped(after)
    assert is_mapped(a["w"])
    assert not is_mapped(before["w"])
    assert change_norm(a, b) == change_norm(before, after)
    total, expected = np.zeros(LONG), np.zeros(LONG)
    add_weighted(total, [(a["w"], 2.0), (b["w"], 3.0)])
    add_weighted(expected, [(before["w"], 2.0), (after["w"], 3.0)])
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(b["w"], after["w"])
