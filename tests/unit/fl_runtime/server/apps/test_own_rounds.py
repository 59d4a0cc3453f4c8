"""Apps that run their own loops: what becomes of the messages that they send."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes.runs import DEVICES, GOOD, grid_of, initial, spec
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

from edge.protocol.messages import Command
from edge.protocol.records import Records
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import RoundRecord
from fl_runtime.server.apps.app_runner import run_app
from fl_runtime.server.rounds.round_loop import FinishedRounds, RoundLoop


def run(
    main: Callable[[Grid, Context], Any], devices: dict = GOOD, **changes: Any
) -> tuple[FinishedRounds, list[RoundRecord], RoundLoop]:
    """Run an app's main function over in-memory devices."""
    app, records, the_spec = ServerApp(), [], spec(**changes)
    app.main()(main)
    loop = RoundLoop(the_spec, lambda done, checkpoint: records.append(done), lambda: False)
    context = Context(1, 1, {}, RecordDict(), {})
    return run_app(app, grid_of(devices, the_spec), context, loop), records, loop


def ask(grid: Grid, kind: str, arrays: ArrayRecord, number: int = 0) -> list[RecordDict]:
    config = {"config": ConfigRecord({"server-round": number})} if number else {}
    content = RecordDict({"arrays": arrays, **config})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return [reply.content for reply in grid.send_and_receive(messages) if reply.has_content()]


def mean(contents: list[RecordDict]) -> ArrayRecord:
    arrays = [content["arrays"]["w"].numpy() for content in contents]
    return ArrayRecord({"w": Array(np.mean(arrays, axis=0)), "n": initial()["n"]})


@pytest.mark.parametrize("numbered", [True, False])
def test_a_loop_written_by_hand_is_recorded_round_by_round(numbered: bool) -> None:
    sent: list[ArrayRecord] = []

    def main(grid: Grid, context: Context) -> None:
        arrays = initial()
        for number in (1, 2):
            at = number if numbered else 0
            arrays = mean(ask(grid, "train", arrays, at))
            sent.append(arrays)
            ask(grid, "evaluate", arrays, at)

    finished, records, _ = run(main)
    assert [(record.round, record.participants, record.start) for record in records] == [
        (1, 6, 0),
        (2, 6, 0),
    ]
    assert {row.kind for row in records[1].devices} == {"train", "evaluate"}
    losses = [row.metrics["loss"] for row in records[1].devices if row.kind == "evaluate"]
    assert records[1].evaluate["loss"] == pytest.approx(
        np.average(losses, weights=[10, 20, 30, 40, 50, 60])
    )
    assert finished.final_round == 2
    np.testing.assert_array_equal(finished.result.arrays["w"].numpy(), sent[-1]["w"].numpy())


def test_what_an_app_leaves_in_its_state_is_its_model() -> None:
    left = ArrayRecord({"w": Array(np.full(5, 7.0, np.float32))})

    def main(grid: Grid, context: Context) -> None:
        ask(grid, "train", initial())
        context.state["arrays"] = left

    assert run(main)[0].result.arrays is left


def test_arrays_of_each_devices_own_and_gradients_are_no_model() -> None:
    def main(grid: Grid, context: Context) -> None:
        nodes = list(grid.get_node_ids())
        own = [RecordDict({"arrays": mean_of(number)}) for number in range(len(nodes))]
        pairs = zip(own, nodes, strict=True)
        grid.send_and_receive([Message(content, node, "train") for content, node in pairs])

    def mean_of(number: int) -> ArrayRecord:
        return ArrayRecord({"w": Array(np.full(5, number, np.float32)), "n": initial()["n"]})

    def without(command: Command, content: Records) -> Records:
        return Records(metrics={"metrics": {"loss": 1.0}})

    assert not run(main)[0].result.arrays
    assert not run(
        lambda grid, context: ask(grid, "train", initial()), dict.fromkeys(DEVICES, without)
    )[0].result.arrays


class OwnStart(FedAvg):
    """Overrides Flower's loop."""

    def start(self, grid: Grid) -> Result:  # type: ignore[override]
        arrays = mean(ask(grid, "train", initial(), 1))
        return Result(arrays=mean(ask(grid, "train", arrays, 2)))


def test_a_strategys_own_start_gives_the_model_and_the_rounds() -> None:
    results: list[Result] = []
    finished, records, _ = run(lambda grid, context: results.append(OwnStart().start(grid)))
    assert finished.result.arrays is results[0].arrays
    assert [record.round for record in records] == [1, 2]


def test_what_is_sent_before_a_strategy_starts_belongs_to_no_round() -> None:
    def main(grid: Grid, context: Context) -> None:
        ask(grid, "evaluate", initial())
        FedAvg().start(grid=grid, initial_arrays=initial(), num_rounds=1)
        ask(grid, "evaluate", initial())

    finished, records, _ = run(main)
    assert [(record.round, record.start) for record in records] == [(1, 1)]
    assert finished.final_round == 1


def test_an_option_of_our_loop_is_refused_once_an_app_trains_without_it() -> None:
    with pytest.raises(RunFailed, match="runs its own rounds: --quorum needs an app that calls"):
        run(lambda grid, context: ask(grid, "train", initial()), quorum=2)


def test_a_target_ends_the_apps_own_loop() -> None:
    def main(grid: Grid, context: Context) -> None:
        for number in range(1, 9):
            ask(grid, "evaluate", initial(), number)

    _, records, loop = run(main, metric="loss", target=1e9)
    assert len(records) == 1
    assert "target" in loop.stopping.reason


def test_replies_to_pushed_messages_come_while_others_are_still_awaited() -> None:
    answered: list[int] = []

    def slow(command: Command, content: Records) -> Records | None:
        """Its reply never comes."""
        return None

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": initial()})
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        ids, end = list(grid.push_messages(messages)), time.monotonic() + 20
        while len(answered) < 5 and time.monotonic() < end:
            answered.extend(reply.metadata.src_node_id for reply in grid.pull_messages(ids))
            time.sleep(0.002)

    run(main, {**GOOD, "d5": slow}, phase_seconds=0.5)
    assert len(set(answered)) >= 5


def test_a_message_keeps_its_group() -> None:
    groups: list[str] = []

    def device(command: Command, content: Records) -> Records:
        groups.append(command.group_id)
        return Records(metrics={"m": {"a": 1.0}})

    def main(grid: Grid, context: Context) -> None:
        nodes = list(grid.get_node_ids())
        grid.send_and_receive([Message(RecordDict(), n, "query", group_id="g") for n in nodes])

    run(main, dict.fromkeys(DEVICES, device))
    assert groups == ["g"] * 6


def test_a_node_gets_every_message_and_an_unknown_one_is_an_error() -> None:
    def device(command: Command, content: Records) -> Records:
        return Records(metrics={"m": {"number": content.configs["c"]["number"]}})

    numbers: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        node = next(iter(grid.get_node_ids()))
        content = [RecordDict({"c": ConfigRecord({"number": number})}) for number in (1, 1, 2)]
        messages = [Message(each, node, "query") for each in content]
        replies = grid.send_and_receive([*messages, Message(content[0], 4242, "query")])
        for reply in replies:
            number = "unavailable" in reply.error.reason if reply.has_error() else None
            numbers.append(number or reply.content["m"]["number"])

    run(main, dict.fromkeys(DEVICES, device))
    assert sorted(numbers, key=str) == [1, 1, 2, True]


def test_a_content_for_each_device_is_one_phase_and_shared_arrays_are_uploaded_once() -> None:
    def device(command: Command, content: Records) -> Records:
        rate = content.configs["config"]["rate"]
        return Records(metrics={"m": {"rate": rate, "w": float(content.arrays["arrays"]["w"][-1])}})

    found: dict[int, float] = {}

    def main(grid: Grid, context: Context) -> None:
        arrays, nodes = initial(), list(grid.get_node_ids())
        messages = [
            Message(
                RecordDict({"arrays": arrays, "config": ConfigRecord({"rate": 0.1 * number})}),
                node,
                "train",
            )
            for number, node in enumerate(nodes)
        ]
        for reply in grid.send_and_receive(messages):
            assert reply.content["m"]["w"] == 1.0
            found[nodes.index(reply.metadata.src_node_id)] = reply.content["m"]["rate"]
        assert len({key for key in grid.phases._objects.puts if "/arrays/" in key}) == 1

    _, (record,), _ = run(main, dict.fromkeys(DEVICES, device))
    assert found == {number: pytest.approx(0.1 * number) for number in range(6)}
    assert len({row.phase for row in record.devices}) == 1


def test_a_metric_record_in_the_state_is_no_model() -> None:
    def main(grid: Grid, context: Context) -> None:
        context.state["best"] = MetricRecord({"loss": 1.0})

    finished, records, _ = run(main)
    assert (finished.final_round, records, bool(finished.result.arrays)) == (0, [], False)
