"""Flower's private interfaces are still as this product uses them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from edge.protocol.records import Records, decode_records, encode_records
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


def test_an_array_behaves_as_flowers_own_and_can_be_written_to() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    values.flags.writeable = False
    content = to_recorddict(Records(arrays={"a": {"w": values}}))
    own, array = Array(values), content["a"]["w"]
    assert (array.dtype, array.shape, array.stype, array.data) == (
        own.dtype,
        own.shape,
        own.stype,
        own.data,
    )
    assert (array == own, own == array, array.object_id == own.object_id) == (True, True, True)
    assert copy.deepcopy(array) == pickle.loads(pickle.dumps(array)) == own
    mine = array.numpy()
    mine += 1
    assert from_recorddict(content).arrays["a"]["w"].tolist() == values.tolist()


@pytest.mark.parametrize(
    "values", [np.zeros((0, 3)), np.asfortranarray(np.ones((2, 3))), np.array(2, ">i4")]
)
def test_arrays_of_the_apps_own_are_read_as_flower_reads_them(values: np.ndarray) -> None:
    content = RecordDict({"a": ArrayRecord({"w": Array(values)})})
    found = from_recorddict(content).arrays["a"]["w"]
    assert (found.dtype, found.tolist()) == (values.dtype, Array(values).numpy().tolist())


class DirectGrid(Grid):
    """Calls client apps as devices do: each message and reply passes the wire's records."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        self._app = app
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in range(1, nodes + 1)
        }

    def set_run(self, *args: object, **kwargs: object) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self._contexts)

    def push_messages(self, messages: object) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: object) -> list[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        return [self._answer(message) for message in messages]

    def _answer(self, sent: Message) -> Message:
        node = sent.metadata.dst_node_id
        set_identity(1, node)
        blob = encode_records(from_recorddict(sent.content))
        arrived = incoming_message(
            to_recorddict(decode_records(blob)),
            kind=sent.metadata.message_type,
            message_id="m",
            run_id=1,
            node_id=node,
            group_id=sent.metadata.group_id,
        )
        content = call_client(self._app, arrived, self._contexts[node])
        back = to_recorddict(decode_records(encode_records(from_recorddict(content))))
        sent.metadata.__dict__["_message_id"] = "m"
        return Message(back, reply_to=sent)


def test_secure_aggregation_by_flowers_own_workflow_gives_the_mean() -> None:
    from flwr.client import NumPyClient
    from flwr.client.mod import secaggplus_mod
    from flwr.server import LegacyContext, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

    class Client(NumPyClient):
        def __init__(self, value: float) -> None:
            self.value = value

        def fit(self, parameters, config):
            return [np.full_like(array, self.value) for array in parameters], 1, {}

    app = ClientApp(
        client_fn=lambda context: Client(float(context.node_id)).to_client(),
        mods=[secaggplus_mod],
    )
    start = ndarrays_to_parameters([np.zeros((2, 3))])
    seen = []
    strategy = FedAvg(
        fraction_evaluate=0.0,
        initial_parameters=start,
        min_fit_clients=3,
        min_available_clients=3,
        evaluate_fn=lambda round_, arrays, config: seen.append(arrays),
    )
    context = LegacyContext(
        Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        config=ServerConfig(num_rounds=1),
        strategy=strategy,
    )
    fit = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, clipping_range=8.0)
    DefaultWorkflow(fit_workflow=fit)(DirectGrid(app, 3), context)
    assert len(seen) == 2
    np.testing.assert_allclose(seen[-1][0], np.full((2, 3), 2.0), atol=0.02)  # quantised
