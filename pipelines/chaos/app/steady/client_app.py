"""The ClientApp of the fault suite's app."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from steady.model import TRAININGS, examples, loss, train

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]  # Flower's
def fit(message: Message, context: Context) -> Message:
    """Train for ``work-seconds``, then return the updated weights."""
    partition = int(context.node_config["partition-id"])
    if file := os.environ.get(TRAININGS):
        with Path(file).open("a") as trainings:
            trainings.write(f"{message.metadata.message_id}\n")
    time.sleep(float(context.run_config["work-seconds"]))
    arrays = ArrayRecord({"w": Array(train(message.content["arrays"]["w"].numpy(), partition))})
    return Message(
        RecordDict(
            {"arrays": arrays, "metrics": MetricRecord({"num-examples": examples(partition)})}
        ),
        reply_to=message,
    )


@app.evaluate()  # type: ignore[untyped-decorator]  # Flower's
def evaluate(message: Message, context: Context) -> Message:
    """Return the loss at the device's target."""
    partition = int(context.node_config["partition-id"])
    metrics = MetricRecord(
        {
            "loss": loss(message.content["arrays"]["w"].numpy(), partition),
            "num-examples": examples(partition),
        }
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
