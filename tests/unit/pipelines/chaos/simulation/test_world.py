"""What simulated devices and servers meet: the cloud's ports, the loop, the weather, the checks."""

from __future__ import annotations

import asyncio

from pipelines.chaos.simulation.checks import End, violations
from pipelines.chaos.simulation.cloud import SimulatedCloud, key_of
from pipelines.chaos.simulation.devices import evaluation
from pipelines.chaos.simulation.event_loop import SimulatedLoop, bury, start
from pipelines.chaos.simulation.scheduler import Process, Scheduler
from pipelines.chaos.simulation.servers import StateMachine
from pipelines.chaos.simulation.weather import SYBILS, Weather, weather_of

CALM = {
    "devices": 5,
    "cohorts": 1,
    "delay": 0.1,
    "duplicated": 0.0,
    "lost": 0.0,
    "unacknowledged": 0.0,
    "transfer_fails": 0.0,
    "worker_dies": 0.0,
    "service_fails": 0.0,
    "store_fails": 0.0,
}


def cloud(**changes: float) -> SimulatedCloud:
    return SimulatedCloud(Scheduler(0), Weather(**{**CALM, **changes}))


def test_a_loop_sleeps_in_virtual_time_and_can_be_killed_at_any_await() -> None:
    scheduler, process, done = Scheduler(0), Process("p"), []
    loop = SimulatedLoop(scheduler, process)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(3.0))
            tasks.create_task(asyncio.sleep(5.0))
        done.append(scheduler.time())
        try:
            await asyncio.sleep(10.0)
        finally:
            done.append("unwound")

    start(loop, main(), lambda task: None)
    scheduler.at(7.0, process.kill)
    scheduler.run(lambda: False, 100.0)
    assert done == [5.0]
    assert loop.faults == []
    bury(loop)


def test_messages_are_lost_doubled_and_only_for_the_connected() -> None:
    for share, arrived in ({"lost": 1.0}, 0), ({"duplicated": 1.0}, 2), ({}, 1):
        world, got = cloud(**share), []
        world.send("away", "t", b"m")
        world.connected["here"] = lambda source, payload, got=got: got.append(payload)
        world.send("here", "t", b"m")
        world.scheduler.run(lambda: False, 100.0)
        assert len(got) == arrived


def test_a_device_writes_only_its_own_row() -> None:
    world, payload = cloud(), b'{"key": "k", "body": "b"}'
    world.publish("sim-1", "fl/sim/sim-1/reply", payload)
    world.publish("sim-1", "fl/sim/sim-0/reply", payload)
    world.publish("sim-1", "fl/sim/sim-1/reply", b"[1")
    assert list(world.replies["k"]) == ["sim-1"]


def test_an_address_expires() -> None:
    world = cloud()
    assert key_of(world.url("key", 5.0), 4.0) == "key"
    assert key_of(world.url("key", 5.0), 6.0) is None


def test_a_server_that_never_speaks_is_replaced_until_there_is_no_more() -> None:
    world = cloud()
    world.weather.server_faults = [("kill", 1, 0.0)] * 20
    machine = StateMachine(world, "run", lambda text: "")
    machine.start()
    world.scheduler.run(lambda: machine.answer is not None, 10_000.0)
    assert machine.answer == ("States.Timeout", "every server was lost")


def test_three_devices_are_spared_and_sybils_are_three_of_eight() -> None:
    for seed in range(200):
        weather = weather_of(seed, ["huge"])
        faulty = {*weather.device_faults, *weather.hostile}
        assert weather.devices - len(faulty) >= 2
        if weather.devices == 8:
            assert len(weather.hostile) == SYBILS


def test_what_is_missing_is_a_violation() -> None:
    end = End(answer=None, run="run", rounds=3, trained=[], boots={})
    assert list(violations(cloud(), end)) == ["the run did not end"]
    world, trained = cloud(), [("d", "m")] * 3
    world.commits = [(1, 1, "")]
    failed = End(answer=("RunFailed", "no"), run="run", rounds=3, trained=trained, boots={"d": 2})
    assert any("is lost" in text for text in violations(world, failed))
    world.commits = []
    assert "d trained 3 times for m" in list(violations(world, failed))


def test_an_honest_evaluation_has_a_loss() -> None:
    import numpy as np

    assert "loss" in evaluation(np.zeros(3, np.float32), 0).metrics["metrics"]
