"""The round loop against Flower's own: same strategies, same clients, same seed, same model."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from fakes.runs import DEVICES, GOOD, grid_of, initial, run_rounds, spec, training_device
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from edge.protocol.messages import Command, Reply
from edge.protocol.records import Records
from edge.training.flower_compat import to_recorddict
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.grid.flower_compat import make_reply, name_message, round_loop
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.round_loop import RoundLoop
from fl_runtime.server.rounds.strategies import build, foldable, stock_names


class PlainGrid(IoTGrid):
    """Flower's own loop over the same clients, called directly: the reference."""

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            name_message(message, "m")
            device = self.phases.device(message.metadata.dst_node_id)
            content = Records(
                arrays={"arrays": {k: a.numpy() for k, a in message.content["arrays"].items()}}
            )
            command = type("C", (), {"kind": message.metadata.message_type})
            replies.append(
                make_reply(message, to_recorddict(training_device(device)(command, content)))
            )
        return replies


def theirs(strategy: Strategy, rounds: int = 3):
    base = grid_of({d: training_device(d) for d in DEVICES}, spec())
    base.__class__ = PlainGrid
    random.seed(0)
    return strategy.start(grid=base, initial_arrays=initial(), num_rounds=rounds)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FedAvg", {}),
        ("FedProx", {"proximal_mu": 0.1}),
        ("FedAvgM", {"server_momentum": 0.9}),
        ("FedAdam", {"eta": 0.05}),
        ("FedYogi", {}),
        ("FedAdagrad", {}),
        ("FedMedian", {}),
        ("FedTrimmedAvg", {"beta": 0.2}),
        ("Krum", {"num_malicious_nodes": 1}),
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 3}),
    ],
)
def test_every_stock_strategy_gives_flowers_own_result(name: str, parameters: dict) -> None:
    expected = theirs(build(name, parameters, 6))
    for per_proxy in (0, 1, 2):
        result, records = run_rounds(build(name, parameters, 6), GOOD, per_proxy)
        np.testing.assert_allclose(
            result.arrays["w"].numpy(), expected.arrays["w"].numpy(), rtol=1e-5, atol=1e-6
        )
        assert result.arrays["w"].numpy().dtype == np.float32, "dtypes stay what they were"
        assert result.arrays["n"].numpy().dtype == np.int64
        for number in (1, 2, 3):
            for key, value in expected.evaluate_metrics_clientapp[number].items():
                assert records[number - 1].evaluate[key] == pytest.approx(value, rel=1e-5)
            assert records[number - 1].participants == 6


def test_only_stock_means_are_folded() -> None:
    assert foldable(FedAvg())
    assert not foldable(FedAvg(train_metrics_aggr_fn=lambda records, key: None))
    assert not foldable(type("Mine", (FedAvg,), {})())
    assert not foldable(build("Krum", {}, 4))


def test_a_failing_device_is_counted_and_the_round_goes_on() -> None:
    def broken(command: Command, content: Records) -> Reply:
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="error",
            code="app-error",
            reason="no data",
        )

    result, records = run_rounds(
        FedAvg(), {**{d: training_device(d) for d in DEVICES}, "d0": broken}
    )
    assert [record.participants for record in records] == [5, 5, 5]
    assert records[0].failures == {"app-error": 2}
    assert result.arrays


def test_a_round_without_any_valid_update_ends_the_run_with_the_reasons() -> None:
    def broken(command: Command, content: Records) -> Reply:
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="error",
            code="app-error",
            reason="no data",
        )

    with pytest.raises(RunFailed, match=r"round 1 \(6 app-error\).*no data"):
        run_rounds(FedAvg(), dict.fromkeys(DEVICES, broken))


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian"])
def test_one_devices_other_metric_names_never_end_a_run(name: str) -> None:
    def outlier(command: Command, content: Records) -> Records:
        good = training_device("d5")(command, content)
        return Records(
            arrays=good.arrays, metrics={"metrics": {"surprise": 1.0, "num-examples": 3}}
        )

    _, records = run_rounds(
        build(name, {}, 6), {**{d: training_device(d) for d in DEVICES}, "d5": outlier}, per_proxy=3
    )
    assert all(record.participants == 5 for record in records)
    assert all(record.failures == {"metrics": 2} for record in records)


def test_the_runs_strategy_replaces_the_apps() -> None:
    expected, _ = run_rounds(build("FedMedian", {}, 6), {d: training_device(d) for d in DEVICES})
    result, _ = run_rounds(FedAvg(), {d: training_device(d) for d in DEVICES}, strategy="FedMedian")
    np.testing.assert_array_equal(result.arrays["w"].numpy(), expected.arrays["w"].numpy())


def test_parameters_alone_change_the_apps_strategy() -> None:
    _, records = run_rounds(
        FedAvg(), {d: training_device(d) for d in DEVICES}, strategy_params={"fraction_train": 0.5}
    )
    assert [record.participants for record in records] == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("FedMagic", {}, "no strategy 'FedMagic'.*FedAvg"),
        ("FedAdam", {"etta": 1.0}, "no parameter 'etta'"),
        ("FedAdam", {"eta": "fast"}, "wants a number"),
        ("FedAvg", {"min_train_nodes": 1.5}, "whole number"),
        ("FedTrimmedAvg", {"beta": 0.9}, "refuses its parameters"),
        ("FedXgbCyclic", {"min_train_nodes": 1}, "no parameter 'min_train_nodes'"),
        ("QFedAvg", {}, "refuses its parameters"),
    ],
)
def test_a_wrong_strategy_is_refused_in_one_sentence(
    name: str, parameters: dict, message: str
) -> None:
    with pytest.raises(RunFailed, match=message):
        build(name, parameters, 4)


def test_the_app_says_how_many_rounds_there_are() -> None:
    the_spec, records = spec(num_rounds=3), []
    loop = RoundLoop(the_spec, lambda record, checkpoint: records.append(record), lambda: False)
    with round_loop(IoTGrid, loop):
        FedAvg().start(grid=grid_of(GOOD, the_spec), initial_arrays=initial(), num_rounds=2)
    assert [record.round for record in records] == [1, 2]


def test_a_round_asks_exactly_the_devices_that_the_strategy_samples() -> None:
    """Flower's own loop with the same seed trains the same devices, and gives the same model."""
    expected = theirs(FedAvg(fraction_train=0.5))
    result, records = run_rounds(FedAvg(fraction_train=0.5), GOOD)
    asked = [[row for row in r.devices if row.kind == "train"] for r in records]
    assert [len(rows) for rows in asked] == [3, 3, 3]
    np.testing.assert_allclose(
        result.arrays["w"].numpy(), expected.arrays["w"].numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("over", [1.0, 2.0])
def test_a_cyclic_strategy_by_name_asks_one_device_after_the_other(over: float) -> None:
    strategy = build("FedXgbCyclic", {}, 6, like=FedAvg())
    _, records = run_rounds(strategy, GOOD, num_rounds=7, over_selection=over)
    asked = [[row.device for row in r.devices if row.kind == "train"] for r in records]
    assert all(len(devices) == 1 for devices in asked)
    assert len({devices[0] for devices in asked[:6]}) == 6
    assert asked[6] == asked[0]
    assert run_rounds(build("FedXgbCyclic", {}, 1), {"d0": GOOD["d0"]}, num_rounds=1)
    with pytest.raises(RunFailed, match="no other selection than its own"):
        run_rounds(build("FedXgbCyclic", {}, 6), GOOD, selection="random")


def test_all_weighted_strategies_can_be_named() -> None:
    assert {
        "FedAvg",
        "FedProx",
        "FedAdam",
        "FedYogi",
        "FedAdagrad",
        "FedAvgM",
        "Krum",
        "FedMedian",
        "FedTrimmedAvg",
    } <= set(stock_names())


def test_an_apps_own_messages_go_through_unfolded() -> None:
    def device(command: Command, content: Records) -> Records:
        return Records(
            metrics={"m": {"who": int(command.node_id % 97)}}, configs={"c": {"text": "hello"}}
        )

    grid = grid_of(dict.fromkeys(DEVICES[:3], device), spec())
    replies = list(
        grid.send_and_receive(
            [
                Message(RecordDict({"c": ConfigRecord({"a": 1})}), node, "query.hello")
                for node in grid.get_node_ids()
            ]
        )
    )
    assert {reply.content["m"]["who"] for reply in replies} == {
        node % 97 for node in grid.get_node_ids()
    }
    assert {reply.content["c"]["text"] for reply in replies} == {"hello"}
    ids = grid.push_messages([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
    grid.settle()
    assert len(list(grid.pull_messages(ids))) == 3
    assert list(grid.pull_messages(ids)) == []


def test_a_strategy_that_wants_more_devices_than_there_are_ends_the_run() -> None:
    with pytest.raises(RunFailed, match="wants at least 9 devices, and the run has 6"):
        run_rounds(FedAvg(min_available_nodes=9), {d: training_device(d) for d in DEVICES})


def old_client(device: str, loss: float | None = None):
    """What a worker answers for a client_fn app, in Flower's compatibility records; ``loss``: its
    claim about its evaluation.
    """

    def answer(command: Command, content: Records) -> Records:
        modern = training_device(device)
        w = content.arrays[
            "fitins.parameters" if command.kind == "train" else "evaluateins.parameters"
        ]["0"]
        found = modern(command, Records(arrays={"arrays": {"w": w, "n": np.array(0)}}))
        metrics = found.metrics["metrics"]
        count = {"num_examples": metrics["num-examples"]}
        status = {"code": 0, "message": "ok"}
        if command.kind == "train":
            return Records(
                arrays={"fitres.parameters": {"0": found.arrays["arrays"]["w"]}},
                metrics={"fitres.num_examples": count},
                configs={"fitres.metrics": {}, "fitres.status": status},
            )
        return Records(
            metrics={
                "evaluateres.loss": {"loss": metrics["loss"] if loss is None else loss},
                "evaluateres.num_examples": count,
            },
            configs={"evaluateres.metrics": {}, "evaluateres.status": status},
        )

    return answer


def old_app():
    """An app with ``server_fn``: two rounds of the older FedAvg."""
    from flwr.common import ndarrays_to_parameters
    from flwr.compat.server import ServerAppComponents
    from flwr.server import ServerConfig
    from flwr.server.strategy import FedAvg as OldFedAvg
    from flwr.serverapp import ServerApp

    start = np.linspace(0, 1, 5, dtype=np.float32)
    old = functools.partial(
        OldFedAvg, min_fit_clients=6, min_available_clients=6, min_evaluate_clients=6
    )
    return ServerApp(
        server_fn=lambda context: ServerAppComponents(
            strategy=old(initial_parameters=ndarrays_to_parameters([start])),
            config=ServerConfig(num_rounds=2),
        )
    )


def test_an_app_with_server_fn_runs_its_own_strategy_and_is_recorded() -> None:
    from fl_runtime.server.apps.legacy_app import run_server_fn

    app = old_app()
    the_spec, records = spec(), []
    grid = grid_of({d: old_client(d) for d in DEVICES}, the_spec)
    loop = RoundLoop(the_spec, lambda record, checkpoint: records.append(record), lambda: False)
    result = run_server_fn(app, grid, Context(1, 1, {}, RecordDict(), {}), loop).result
    expected = theirs(FedAvg(), rounds=2)
    np.testing.assert_allclose(result.arrays["0"].numpy(), expected.arrays["w"].numpy(), rtol=1e-5)
    assert [(record.round, record.participants) for record in records] == [(1, 6), (2, 6)]
    phases = {row.phase for row in records[0].devices}
    assert len(phases) == 2, "one phase trains all devices, and one evaluates them"
    assert records[1].evaluate["loss"] == pytest.approx(
        expected.evaluate_metrics_clientapp[2]["loss"], rel=1e-5
    )
    with pytest.raises(RunFailed, match="brings its own strategy"):
        run_server_fn(
            app,
            grid,
            Context(1, 1, {}, RecordDict(), {}),
            RoundLoop(spec(strategy="FedAdam"), loop.record, lambda: False),
        )
    goal = RoundLoop(spec(target=1e9, metric="loss", goal="minimize"), loop.record, lambda: False)
    finished = run_server_fn(app, grid, Context(1, 1, {}, RecordDict(), {}), goal)
    assert (finished.final_round, goal.stopping.reason) == (
        1,
        "the target of 1e+09 was reached in round 1",
    )


def test_an_app_with_server_fn_is_judged_by_robust_means_too() -> None:
    from fl_runtime.server.apps.legacy_app import run_server_fn

    liar = DEVICES[0]
    devices = {d: old_client(d, -1e9 if d == liar else None) for d in DEVICES}
    the_spec, records = spec(target=-1e3, metric="loss", goal="minimize"), []
    loop = RoundLoop(the_spec, lambda record, checkpoint: records.append(record), lambda: False)
    context = Context(1, 1, {}, RecordDict(), {})
    finished = run_server_fn(old_app(), grid_of(devices, the_spec), context, loop)
    assert finished.final_round == 2, "one device's claim reaches no target"
    for record in records:
        assert record.evaluate["loss"] < -1e6
        assert 0 < record.robust["loss"] < 1e3
        assert record.outliers == {"loss": [liar]}
