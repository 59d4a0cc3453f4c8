"""Virtual time, strands and their ends."""

from __future__ import annotations

import pytest

from pipelines.chaos.simulation.concurrency import Strands
from pipelines.chaos.simulation.scheduler import Process, Scheduler


def test_strands_sleep_in_virtual_time_and_in_an_order_of_the_seed() -> None:
    def order(seed: int) -> list[tuple[str, float]]:
        scheduler, done = Scheduler(seed), []

        def work(name: str) -> None:
            scheduler.sleep(5.0)
            done.append((name, scheduler.time()))

        for name in "abcdef":
            scheduler.spawn(Process(name), lambda name=name: work(name))
        scheduler.run(lambda: False, 100.0)
        return done

    assert order(1) == order(1)
    assert {order(seed)[0][0] for seed in range(20)} != {"a"}, "any of them may be first"
    assert {time for _, time in order(1)} == {5.0}


def test_a_killed_process_does_nothing_any_more() -> None:
    scheduler, process, done = Scheduler(0), Process("p"), []

    def work() -> None:
        try:
            scheduler.sleep(10.0)
            done.append("slept")
        finally:
            with pytest.raises(BaseException, match="") as raised:
                scheduler.sleep(1.0)
            done.append(type(raised.value).__name__)

    scheduler.spawn(process, work)
    scheduler.at(5.0, process.kill)
    scheduler.run(lambda: False, 100.0)
    assert done == ["Killed"]


def test_a_paused_process_goes_on_later() -> None:
    scheduler, process, done = Scheduler(0), Process("p"), []
    scheduler.spawn(process, lambda: (scheduler.sleep(1.0), done.append(scheduler.time())))
    process.paused_until = 30.0
    scheduler.run(lambda: False, 100.0)
    assert done == [31.0]


def test_calls_side_by_side_keep_the_ports_promises() -> None:
    scheduler, process, found = Scheduler(0), Process("p"), {}
    strands = Strands(scheduler)

    def call(seconds: float) -> float:
        scheduler.sleep(seconds)
        return seconds

    def broken() -> None:
        raise ValueError("no")

    def work() -> None:
        found["each"] = list(strands.each(call, [3.0, 1.0, 2.0], 3))
        found["merged"] = list(strands.merged([iter([1, 2]), iter([3])]))
        future = strands.background("b").submit(call, 4.0)
        found["background"] = future.result()
        with pytest.raises(ValueError, match="no"):
            strands.background("b").submit(broken).result()
        with pytest.raises(ZeroDivisionError):
            list(strands.each(lambda item: 1 / item, [0], 1))

    scheduler.spawn(process, work)
    scheduler.run(lambda: False, 100.0)
    assert found["each"] == [1.0, 2.0, 3.0]
    assert sorted(found["merged"]) == [1, 2, 3]
    assert found["background"] == 4.0
