"""Two hundred simulated runs, each under faults of its own, on all cores."""

from __future__ import annotations

from pipelines.chaos.simulation.suite import simulate_all


def test_two_hundred_seeds_survive() -> None:
    outcomes = simulate_all(list(range(1000, 1200)), lambda outcome: None)
    failed = [(one.seed, one.weather, one.violations) for one in outcomes if one.violations]
    assert failed == []
    assert len({one.trace for one in outcomes}) == 200
