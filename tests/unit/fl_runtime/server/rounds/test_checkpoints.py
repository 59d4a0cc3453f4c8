"""Checkpoints: the next server of a run goes on at the last one and ends with the same model."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fakes.killed_server import KilledServer, check_killed_at
from fakes.objects import MemoryObjects
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records, encode_records
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.rounds.checkpoints import (
    CheckpointStore,
    decode,
    encode,
    restore,
    take,
)
from fl_runtime.server.rounds.strategies import build


def test_killed_at_any_fifth_step_the_final_model_is_the_same() -> None:
    """tests/integration/test_killed_server.py kills more strategies at every step."""
    check_killed_at("FedAdam", {"eta": 0.05}, slice(2, None, 5))


def test_a_damaged_checkpoint_is_found_out_and_the_one_before_is_used() -> None:
    server = KilledServer("FedAdam", {"eta": 0.05})
    expected = server.serve()["w"].numpy()
    newest, before = (
        next(key for key in server.objects.data if name in key)
        for name in server.committed.split(",")
    )
    server.objects.data[newest] = server.objects.data[newest][:-1] + b"\x00"
    np.testing.assert_array_equal(server.serve()["w"].numpy(), expected)
    assert server.committed.split(",")[1] in before, (
        "the damaged one is not counted among the last two"
    )
    for key in (newest, before):
        server.objects.data.pop(key)
    np.testing.assert_array_equal(server.serve()["w"].numpy(), expected)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    checkpoint = take(1, 2, {"other": np.zeros(3)}, FedAvg())
    with pytest.raises(RunFailed, match="another model"):
        restore(checkpoint, {"w": np.zeros(3)}, FedAvg())


def test_wrapped_strategies_keep_their_state() -> None:
    wrapped = DifferentialPrivacyServerSideFixedClipping(build("FedAdam", {}, 6), 0.5, 1.0, 6)
    wrapped.strategy.m_t = {"w": np.arange(3.0)}
    wrapped.clipping_norm = 0.25
    fresh = DifferentialPrivacyServerSideFixedClipping(build("FedAdam", {}, 6), 0.5, 1.0, 6)
    model = {"w": np.zeros(3, np.float32)}
    restore(decode(encode(take(1, 2, model, wrapped))), model, fresh)
    np.testing.assert_array_equal(fresh.strategy.m_t["w"], np.arange(3.0))
    assert fresh.clipping_norm == 0.25


@given(
    st.integers(1, 10**6),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_a_checkpoint_survives_storage(number: int, values: list[float], seed: int) -> None:
    random.seed(seed)
    strategy = build("FedAvgM", {"server_momentum": 0.5}, 2)
    strategy.momentum_vector = [np.array(values), np.array(2.0)]
    strategy.current_arrays = ArrayRecord({"w": Array(np.array(values))})
    checkpoint = take(number, 3, {"w": np.array(values, np.float32)}, strategy)
    expected = [random.random() for _ in range(5)]
    random.seed(0)
    fresh = build("FedAvgM", {}, 2)
    restore(decode(encode(checkpoint)), {"w": np.zeros(len(values))}, fresh)
    assert [random.random() for _ in range(5)] == expected
    assert decode(encode(checkpoint)).round == number
    np.testing.assert_array_equal(fresh.momentum_vector[0], values)
    np.testing.assert_array_equal(fresh.current_arrays["w"].numpy(), values)
    assert fresh.server_momentum == 0.5
    assert isinstance(checkpoint.state, Records)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"round": [1.5], "sequence": 1, "random": "[3, [], null]"},
        {"round": 1, "sequence": 1, "random": "["},
        {"round": 1, "sequence": 1, "random": "[3, [1, 2], null]"},
        {"round": 1, "sequence": 1, "random": "[2, [1e400], null]"},
        {"round": "9" * 5000, "sequence": 1, "random": "[]"},
    ],
)
def test_a_checkpoint_that_is_none_is_refused(meta: dict) -> None:
    blob = encode_records(
        Records(arrays={"model": {"w": np.zeros(2)}}, configs={"checkpoint": meta})
    )
    with pytest.raises(ProtocolError):
        decode(blob)


def test_a_checkpoint_that_is_written_again_is_named_once() -> None:
    objects = MemoryObjects()
    store = CheckpointStore(objects, "run-1")
    first = take(1, 0, {"w": np.zeros(2)}, FedAvg())
    once = store.save(first)
    assert store.save(first) == once
    second = store.save(take(2, 0, {"w": np.ones(2)}, FedAvg()))
    assert second.split(",")[1:] == [once]
    store.discard_superseded()
    assert len(objects.data) == 2


def test_a_checkpoint_that_was_exchanged_for_another_whole_one_is_not_used() -> None:
    objects = MemoryObjects()
    store = CheckpointStore(objects, "run-1")
    store.save(take(1, 0, {"w": np.zeros(2)}, FedAvg()))
    names = store.save(take(2, 0, {"w": np.ones(2)}, FedAvg()))
    newest, _ = sorted(objects.data, reverse=True)
    objects.data[newest] = encode(take(2, 0, {"w": np.full(2, 9.0)}, FedAvg()))
    found = CheckpointStore(objects, "run-1").load(names)
    assert found is not None
    assert found.round == 1
