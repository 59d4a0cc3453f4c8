"""Medians and trimmed means in blocks are NumPy's and Flower's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

from fl_runtime.aggregation import order_statistics
from fl_runtime.aggregation.order_statistics import (
    median,
    selection_network,
    sorting_network,
    trimmed_mean,
)


def rows(count: int, dtype: str = "f4", size: int = 2 * order_statistics.BLOCK + 3) -> list:
    noise = np.random.default_rng(count).standard_normal((count, size)) * 100
    return list(noise.astype(dtype))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20, 33])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_the_median_is_numpys_to_the_bit(count: int, dtype: str) -> None:
    given = rows(count, dtype, 999)
    found, expected = median(given), np.median(np.stack(given), axis=0)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cut", [0.0, 0.1, 0.2, 0.45])
@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_the_trimmed_mean_is_flowers(count: int, cut: float) -> None:
    given = rows(count)
    found, expected = trimmed_mean(given, cut), trim_mean(np.stack(given), cut)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-4)


def test_many_rows_give_the_same_by_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(9)
    by_network = median(given), trimmed_mean(given, 0.3)
    monkeypatch.setattr(order_statistics, "NETWORK_ROWS", 8)
    np.testing.assert_array_equal(median(given), by_network[0])
    np.testing.assert_allclose(trimmed_mean(given, 0.3), by_network[1], rtol=1e-6, atol=1e-4)


def test_shapes_stay_and_arrays_without_elements_are_none() -> None:
    given = [np.full((2, 3), value, np.float32) for value in (1, 5, 2)]
    assert median(given).tolist() == np.full((2, 3), 2.0).tolist()
    assert float(median([np.float32(v).reshape(()) for v in (1, 5, 2)])) == 2.0
    assert median([np.empty((0, 4), np.float32)] * 3).shape == (0, 4)


@pytest.mark.parametrize("count", range(1, 8))
def test_the_network_sorts_every_order_of_zeros_and_ones(count: int) -> None:
    """Which proves that it sorts everything (Knuth, volume 3, section 5.3.4)."""
    for values in itertools.product((0, 1), repeat=count):
        assert compared(values, sorting_network(count)) == sorted(values)


@pytest.mark.parametrize("count", range(1, 8))
def test_a_pruned_network_puts_the_wanted_ranks_in_their_rows(count: int) -> None:
    for low, high in itertools.combinations(range(count + 1), 2):
        network = selection_network(count, range(low, high))
        for values in itertools.product((0, 1), repeat=count):
            found = compared(values, network)[low:high]
            assert sorted(found) == sorted(values)[low:high]


def compared(values: tuple[int, ...], network) -> list[int]:
    found = list(values)
    for low, high in network:
        found[low], found[high] = sorted((found[low], found[high]))
    return found
