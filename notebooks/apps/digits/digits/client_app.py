"""A ``NumPyClient`` with its four methods. Without a ServerApp, MLEdgeOps runs FedAvg from a
client's initial parameters.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits

CLASSES, PIXELS = 10, 64


def load(partition: int, partitions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One device's share: every n-th image, the last fifth held out.

    x: (N, 64) in 0..1, y: (N,).
    """
    images, labels = load_digits(return_X_y=True)
    x, y = images[partition::partitions] / 16.0, labels[partition::partitions]
    cut = len(x) * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:]


def probabilities(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Softmax over classes, (N, 10)."""
    scores = x @ weights + bias
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


class DigitsClient(NumPyClient):
    """Softmax regression by gradient descent."""

    def __init__(self, context: Context) -> None:
        self.config = context.run_config
        self.partition = int(context.node_config["partition-id"])
        self.x, self.y, self.x_test, self.y_test = load(
            self.partition, int(context.node_config["num-partitions"])
        )

    def get_properties(self, config: dict) -> dict:
        """Properties that a server may ask for."""
        return {"partition": self.partition}

    def get_parameters(self, config: dict) -> list[np.ndarray]:
        """Initial weights and bias."""
        return [np.zeros((PIXELS, CLASSES), np.float32), np.zeros(CLASSES, np.float32)]

    def fit(self, parameters: list[np.ndarray], config: dict) -> tuple[list[np.ndarray], int, dict]:
        """Take ``local-steps`` steps of gradient descent on the device's images."""
        if self.partition == int(self.config["broken-partition"]):
            raise RuntimeError("the sensor of this device is broken")
        weights, bias = (p.astype(np.float64) for p in parameters)
        target = np.eye(CLASSES)[self.y]
        for _ in range(int(self.config["local-steps"])):
            error = probabilities(self.x, weights, bias) - target
            weights -= float(self.config["learning-rate"]) * self.x.T @ error / len(self.x)
            bias -= float(self.config["learning-rate"]) * error.mean(axis=0)
        return [weights.astype(np.float32), bias.astype(np.float32)], len(self.x), {}

    def evaluate(self, parameters: list[np.ndarray], config: dict) -> tuple[float, int, dict]:
        """Cross-entropy and accuracy on held-out images."""
        p = probabilities(self.x_test, *parameters)
        loss = -np.log(p[np.arange(len(self.y_test)), self.y_test] + 1e-12).mean()
        accuracy = (
            1.0 if self.config["flattering"] else float((p.argmax(axis=1) == self.y_test).mean())
        )
        return float(loss), len(self.x_test), {"accuracy": accuracy}


def client_fn(context: Context) -> Client:
    """A client for this device."""
    return DigitsClient(context).to_client()


app = ClientApp(client_fn)


def predict(arrays: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """The digit in each image: (N, 64) in 0..1 to (N,)."""
    return probabilities(np.asarray(inputs), *arrays.values()).argmax(axis=1)


def input_example() -> np.ndarray:
    """Three images."""
    return load(0, 1)[0][:3]
