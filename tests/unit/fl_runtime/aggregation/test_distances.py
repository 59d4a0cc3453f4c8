"""Distances in blocks are exact where the weights are large, and Krum's choice is Flower's."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum

from fl_runtime.aggregation.blocks import DOT
from fl_runtime.aggregation.distances import krum_order, squared_distances


def updates(count: int, offset: float = 0.0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(count)
    return [
        {
            "a": (generator.standard_normal(DOT + 7) + offset).astype(np.float32),
            "b": generator.standard_normal((3, 2)).astype(np.float64),
            "n": np.array(number),
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distances_are_those_of_float64(offset: float) -> None:
    given = updates(5, offset)
    flat = [np.concatenate([np.ravel(a).astype("f8") for a in u.values()]) for u in given]
    expected = [[((x - y) ** 2).sum() for y in flat] for x in flat]
    np.testing.assert_allclose(squared_distances(given), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("count", "malicious"), [(3, 0), (7, 2), (9, 1)])
def test_krum_chooses_as_flower_does(count: int, malicious: int) -> None:
    given = updates(count)
    given[1]["a"] += 5.0
    contents = [
        RecordDict({"arrays": ArrayRecord({key: Array(value) for key, value in update.items()})})
        for update in given
    ]
    theirs = select_multikrum(contents, malicious, count)
    positions = [next(at for at, c in enumerate(contents) if c is content) for content in theirs]
    assert krum_order(squared_distances(given), malicious) == positions
