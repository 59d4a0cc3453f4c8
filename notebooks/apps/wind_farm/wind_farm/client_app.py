"""The ClientApp, which runs on each turbine's device."""

from __future__ import annotations

import pandas as pd
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from wind_farm import task

app = ClientApp()

TWO_WEEKS = pd.Timedelta(days=14)


def _rows(context: Context) -> tuple[pd.DataFrame, pd.DataFrame]:
    return task.split(
        task.partition(
            int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
        )
    )


def _model(message: Message) -> task.Net:
    model = task.Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model


def _train(model: task.Net, rows: pd.DataFrame, context: Context, epochs: int, seed: int) -> float:
    config = context.run_config
    return task.train(
        model,
        rows,
        epochs=epochs,
        batch_size=int(config["batch-size"]),
        learning_rate=float(config["learning-rate"]),
        seed=seed,
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for ``local-epochs`` on the turbine's data of 2014."""
    model, (rows, _) = _model(message), _rows(context)
    loss = _train(
        model,
        rows,
        context,
        int(context.run_config["local-epochs"]),
        int(message.content["config"]["server-round"]),
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"loss": loss, "num-examples": len(rows)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model on the turbine's data of 2015."""
    model, (_, rows) = _model(message), _rows(context)
    metrics = MetricRecord({"rmse_kw": task.rmse_kw(model, rows), "num-examples": len(rows)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query("alone")
def alone(message: Message, context: Context) -> Message:
    """Errors of models trained on this turbine alone: on its full year, and on its first two weeks.
    Only metrics leave the device.
    """
    rows, test = _rows(context)
    epochs = int(context.run_config["local-epochs"]) * int(context.run_config["num-server-rounds"])
    year, weeks = task.new_model(), task.new_model()
    _train(year, rows, context, epochs, seed=0)
    first = rows[rows["time"] < rows["time"].min() + TWO_WEEKS]
    # Two weeks are a 26th of a year: with more passes over them, the difference comes from missing
    # data and not from missing steps.
    _train(weeks, first, context, epochs * 10, seed=0)
    errors = {"year_kw": task.rmse_kw(year, test), "two_weeks_kw": task.rmse_kw(weeks, test)}
    metrics = MetricRecord({**errors, "partition": int(context.node_config["partition-id"])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
