"""What the apps share: a linear model, and data that each partition makes for itself.

Every random choice of a client is made anew from its partition, the round and the kind of work, so
that it does not depend on the process that makes it.
"""

from __future__ import annotations

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

FEATURES = 4


def rng(*seed: int) -> np.random.Generator:
    """Random numbers that depend on these numbers alone."""
    return np.random.default_rng(list(seed))


def data(partition: int) -> tuple[np.ndarray, np.ndarray]:
    """A partition's examples (n, FEATURES) and targets (n,); partitions differ in size and law."""
    random = rng(7, partition)
    x = random.normal(size=(20 + 10 * partition, FEATURES))
    truth = np.arange(1, FEATURES + 1) + 0.3 * partition
    return x, x @ truth + 0.5 + random.normal(scale=0.1, size=len(x))


def initial() -> ArrayRecord:
    """The weights before the first round."""
    return ArrayRecord(
        {"w": Array(np.zeros(FEATURES, np.float32)), "b": Array(np.zeros(1, np.float32))}
    )


def to_numpy(record: ArrayRecord) -> dict[str, np.ndarray]:
    """An array record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(weights: dict[str, np.ndarray]) -> ArrayRecord:
    """The inverse of :func:`to_numpy`."""
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


def trained(
    weights: dict[str, np.ndarray], partition: int, number: int, pull: float = 0.0
) -> dict[str, np.ndarray]:
    """Weights after one epoch of stochastic gradient descent in a random order.

    ``pull``: how strongly they are held near to where they began (FedProx).
    """
    x, y = data(partition)
    w, b = weights["w"].astype(np.float64), float(weights["b"][0])
    start = w.copy()
    for at in rng(partition, number, 1).permutation(len(x)):
        error = x[at] @ w + b - y[at]
        w = w - 0.02 * (error * x[at] + pull * (w - start))
        b -= 0.02 * error
    return {"w": w.astype(np.float32), "b": np.array([b], np.float32)}


def loss(weights: dict[str, np.ndarray], partition: int) -> float:
    """Mean squared error on a partition."""
    x, y = data(partition)
    return float(np.mean((x @ weights["w"] + weights["b"][0] - y) ** 2))


def central_loss(weights: dict[str, np.ndarray]) -> float:
    """Mean squared error on data of the server's own."""
    return loss(weights, 99)


def wait_for_nodes(grid: Grid, context: Context) -> None:
    """Wait until all nodes are there, as Flower's strategies do by themselves."""
    wanted, end = context.run_config["num-devices"], time.monotonic() + 60
    while len(list(grid.get_node_ids())) < wanted and time.monotonic() < end:
        time.sleep(0.05)


def partition_of(context: Context) -> int:
    """The client's partition."""
    return int(context.node_config["partition-id"])


def round_of(message: Message) -> int:
    """The round that a message belongs to; 0 when it does not say."""
    for record in message.content.config_records.values():
        if "server-round" in record:
            return int(record["server-round"])
    return 0


def train(message: Message, context: Context) -> Message:
    """Train the model for one epoch."""
    partition = partition_of(context)
    weights = to_numpy(next(iter(message.content.array_records.values())))
    weights = trained(weights, partition, round_of(message))
    metrics = {"num-examples": len(data(partition)[0]), "train-loss": loss(weights, partition)}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model."""
    partition = partition_of(context)
    weights = to_numpy(next(iter(message.content.array_records.values())))
    metrics = {"num-examples": len(data(partition)[0]), "loss": loss(weights, partition)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def plain_client() -> ClientApp:
    """A client that trains and evaluates."""
    client = ClientApp()
    client.train()(train)
    client.evaluate()(evaluate)
    return client
