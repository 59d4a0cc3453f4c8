"""Federated XGBoost: bagging, or one client after the other (cyclic)."""

import numpy as np
import xgboost as xgb
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic

from .task import data, partition_of

server = ServerApp()
client = ClientApp()
PARAMETERS = {"max_depth": 2, "eta": 0.5, "nthread": 1, "seed": 1, "tree_method": "exact"}


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedXgbCyclic() if context.run_config["cyclic"] else FedXgbBagging()
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]),
        num_rounds=context.run_config["num-server-rounds"],
    )


def _matrix(context: Context) -> xgb.DMatrix:
    x, y = data(partition_of(context))
    return xgb.DMatrix(x, label=y)


def _booster(message: Message) -> xgb.Booster:
    booster = xgb.Booster(params=PARAMETERS)
    model = message.content["arrays"]["0"].numpy().tobytes()
    if model:
        booster.load_model(bytearray(model))
    return booster


@client.train()
def train(message: Message, context: Context) -> Message:
    matrix = _matrix(context)
    if message.content["config"]["server-round"] == 1:
        booster = xgb.train(PARAMETERS, matrix, num_boost_round=1)
    else:
        booster = _booster(message)
        booster.update(matrix, booster.num_boosted_rounds())
        if not context.run_config["cyclic"]:  # a bagging client sends its newest tree alone
            booster = booster[booster.num_boosted_rounds() - 1 : booster.num_boosted_rounds()]
    model = np.frombuffer(booster.save_raw("json"), dtype=np.uint8)
    content = RecordDict(
        {
            "arrays": ArrayRecord([model]),
            "metrics": MetricRecord({"num-examples": matrix.num_row()}),
        }
    )
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    matrix = _matrix(context)
    found = _booster(message).predict(matrix) - matrix.get_label()
    metrics = {"rmse": float(np.sqrt(np.mean(found**2))), "num-examples": matrix.num_row()}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
