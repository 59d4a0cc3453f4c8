"""The ServerApp: FedAvg over the farm, then tables that compare it with local training."""

from __future__ import annotations

import pandas as pd
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from wind_farm import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate, then compare. The run logs and prints the tables left in ``context.state``."""
    rounds = int(context.run_config["num-server-rounds"])
    few = min(2, len(list(grid.get_node_ids())))
    strategy = FedAvg(min_train_nodes=few, min_evaluate_nodes=few, min_available_nodes=few)
    initial = ArrayRecord(task.new_model().state_dict())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds)
    nodes = sorted(grid.get_node_ids())
    if int(context.run_config["newcomers"]) < 1 or len(nodes) != len(task.turbines()):
        return  # the comparison needs one device per turbine
    alone = _ask(grid, nodes, RecordDict(), "query.alone")
    federated = _evaluate(grid, result.arrays, nodes)
    order = sorted(nodes, key=lambda node: int(alone[node]["partition"]))
    context.state["turbines"] = ConfigRecord(
        {
            "turbine": task.turbines(),
            "federated_kw": [float(federated[node]["rmse_kw"]) for node in order],
            "alone_kw": [float(alone[node]["year_kw"]) for node in order],
            "pooled_kw": _pooled(context, rounds),
        }
    )
    newcomers = order[-int(context.run_config["newcomers"]) :]
    others = {node: _federate(grid, [n for n in nodes if n != node], rounds) for node in newcomers}
    context.state["newcomer"] = ConfigRecord(
        {
            "turbine": [task.turbines()[order.index(node)] for node in newcomers],
            "own_two_weeks_kw": [float(alone[node]["two_weeks_kw"]) for node in newcomers],
            "model_of_the_others_kw": [
                float(_evaluate(grid, others[node], [node])[node]["rmse_kw"]) for node in newcomers
            ],
            "own_full_year_kw": [float(alone[node]["year_kw"]) for node in newcomers],
        }
    )


def _ask(grid: Grid, nodes: list[int], content: RecordDict, kind: str) -> dict[int, dict]:
    """The metrics of each node's reply, by node id."""
    replies = grid.send_and_receive([Message(content, node, kind) for node in nodes])
    return {
        reply.metadata.src_node_id: dict(reply.content["metrics"])
        for reply in replies
        if reply.has_content()
    }


def _evaluate(grid: Grid, arrays: ArrayRecord, nodes: list[int]) -> dict[int, dict]:
    return _ask(grid, nodes, RecordDict({"arrays": arrays, "config": ConfigRecord()}), "evaluate")


def _federate(grid: Grid, nodes: list[int], rounds: int) -> ArrayRecord:
    """FedAvg over the given nodes only, for a model without the newcomer's data."""
    arrays, strategy = ArrayRecord(task.new_model().state_dict()), FedAvg()
    for number in range(1, rounds + 1):
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in nodes])
        arrays = strategy.aggregate_train(number, replies)[0] or arrays
    return arrays


def _pooled(context: Context, rounds: int) -> list[float]:
    """Errors of a model trained on pooled data; possible here because this farm's data is open."""
    config = context.run_config
    parts = [
        task.split(task.partition(index, len(task.turbines())))
        for index in range(len(task.turbines()))
    ]
    model = task.new_model()
    task.train(
        model,
        pd.concat([rows for rows, _ in parts]),
        epochs=int(config["local-epochs"]) * rounds,
        batch_size=int(config["batch-size"]) * len(parts),
        learning_rate=float(config["learning-rate"]),
    )
    return [task.rmse_kw(model, test) for _, test in parts]
