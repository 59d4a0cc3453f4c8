"""The ClientApp: one pass over the weights, and a stamp of the moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
EXAMPLES = 10


@app.train()  # type: ignore[untyped-decorator]  # Flower's
def fit(message: Message, context: Context) -> Message:
    """Halve the weights; return them with the mean of their absolute values as the loss."""
    stamp(message, context, "train")
    weights = message.content["arrays"]["w"].numpy()
    arrays = ArrayRecord({"w": Array(weights * np.float32(0.5))})
    metrics = MetricRecord({"num-examples": EXAMPLES, "loss": float(np.abs(weights).mean())})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()  # type: ignore[untyped-decorator]  # Flower's
def evaluate(message: Message, context: Context) -> Message:
    """Return the mean of the weights' absolute values as the loss."""
    stamp(message, context, "evaluate")
    loss = float(np.abs(message.content["arrays"]["w"].numpy()).mean())
    metrics = MetricRecord({"num-examples": EXAMPLES, "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def stamp(message: Message, context: Context, kind: str) -> None:
    """Append ``ROUND KIND SECONDS`` to this process's file, if a folder for stamps is given.

    Each line is written at once, so that devices can share the folder on any engine.
    """
    folder = str(context.run_config["stamps"])
    if folder:
        number = message.content["config"]["server-round"]
        with (Path(folder) / f"{context.node_config['partition-id']}.txt").open("a") as file:
            file.write(f"{number} {kind} {time.time()} {os.getpid()}\n")
