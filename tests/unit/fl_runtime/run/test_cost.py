"""What a round costs."""

from __future__ import annotations

from fl_runtime.run.cost import Topology, round_cost, tasks_cost_per_second


def test_cost_grows_with_time_proxies_and_devices() -> None:
    assert (
        round_cost(Topology(proxies=1), 60.0, 10)
        < round_cost(Topology(proxies=2), 60.0, 10)
        < round_cost(Topology(proxies=2), 120.0, 10)
        < round_cost(Topology(proxies=2), 120.0, 10_000)
    )


def test_a_server_costs_about_ten_cents_an_hour() -> None:
    assert 0.05 < tasks_cost_per_second(Topology(proxies=0)) * 3600 < 0.15
