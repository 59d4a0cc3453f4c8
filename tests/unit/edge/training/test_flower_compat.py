"""Flower's private interfaces are still as this product uses them."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edge.protocol.records import Records
from edge.training.app_bundle import AppError
from edge.training.flower_compat import (
    call_client,
    from_recorddict,
    incoming_message,
    set_identity,
    to_recorddict,
)

RECORDS = Records(
    arrays={"weights": {"b": np.ones((2, 3), np.float32), "a": np.array(3)}},
    metrics={"metrics": {"loss": 0.5, "counts": [1, 2]}},
    configs={"config": {"name": "x", "raw": b"\x00", "flag": True}},
    order=("config", "weights", "metrics"),
)


def message(records: Records, kind: str = "train") -> Message:
    return incoming_message(to_recorddict(records), kind=kind, message_id="m", run_id=1, node_id=2)


def context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def test_records_pass_through_flower_with_their_order() -> None:
    found = from_recorddict(to_recorddict(RECORDS))
    assert found.names() == RECORDS.names()
    assert (found.metrics, found.configs) == (RECORDS.metrics, RECORDS.configs)
    assert list(found.arrays["weights"]) == ["b", "a"]
    np.testing.assert_array_equal(found.arrays["weights"]["b"], np.ones((2, 3)))


def test_an_app_is_called_with_a_message_and_may_reply_to_it() -> None:
    app = ClientApp()
    set_identity(1, 2)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        assert message.metadata.dst_node_id == context.node_id == 2
        return Message(RecordDict({"m": MetricRecord({"loss": 1.0})}), reply_to=message)

    answer = call_client(app, message(RECORDS), context())
    assert from_recorddict(answer).metrics == {"m": {"loss": 1.0}}


def test_a_numpy_client_gets_and_gives_todays_records() -> None:
    from flwr.client import NumPyClient

    class Client(NumPyClient):
        def fit(self, parameters, config):
            return [array + 1 for array in parameters], 10, {"loss": 0.5, "note": "text"}

        def evaluate(self, parameters, config):
            raise ValueError("no data")

    app = ClientApp(client_fn=lambda context: Client().to_client())
    arrays = Records(arrays={"arrays": {"w": np.zeros(2)}}, configs={"config": {}})
    found = from_recorddict(call_client(app, message(arrays), context()))
    assert found.metrics == {"metrics": {"num-examples": 10, "loss": 0.5}}
    assert found.arrays["arrays"]["w"].tolist() == [1.0, 1.0]
    with pytest.raises((AppError, ValueError), match="no data"):
        call_client(app, message(arrays, "evaluate"), context())
