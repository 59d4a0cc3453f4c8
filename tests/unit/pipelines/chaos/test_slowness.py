"""The machine's slowness: about one where nobody else works, and the mean of what was measured."""

from __future__ import annotations

import math

from pipelines.chaos.slowness import WORK_SECONDS, Slowness


def test_slowness_is_at_least_one_and_known_from_the_start() -> None:
    slowness = Slowness()
    slowness.start()
    try:
        assert 1.0 <= slowness.now() < math.inf
    finally:
        slowness.stop()
    assert not slowness._thread.is_alive()


def test_a_seeds_slowness_is_the_mean_of_its_own_time() -> None:
    slowness = Slowness()
    slowness._samples.extend([(1.0, 9.0), (2.0, 2.0), (3.0, 4.0)])
    assert slowness.since(2.0) == 3.0
    assert slowness.since(99.0) == 4.0, "nothing was measured since: the latest"
    slowness._samples.append((4.0, 0.5))
    assert slowness.since(4.0) == 1.0, "no machine is faster than an idle one"
    assert WORK_SECONDS < 0.1
