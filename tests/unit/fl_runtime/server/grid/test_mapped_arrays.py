"""An update in a file is an ordinary record of Flower's."""

from __future__ import annotations

import tempfile

import numpy as np
from flwr.app import Array, ArrayRecord

from edge.protocol.records import Records, decode_records, encode_records
from edge.training.flower_compat import from_recorddict
from fl_runtime.aggregation.mapped import is_mapped, map_file
from fl_runtime.server.grid.mapped_arrays import MappedArray, to_mapped_recorddict

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def mapped_records() -> Records:
    arrays = {"w": VALUES, "n": np.array(3)}
    with tempfile.TemporaryFile() as file:
        file.write(encode_records(Records(arrays={"arrays": arrays}, metrics={"m": {"a": 1}})))
        return decode_records(map_file(file))


def test_an_app_reads_and_writes_copies_and_flower_sees_its_own_arrays() -> None:
    content = to_mapped_recorddict(mapped_records())
    array = content["arrays"]["w"]
    assert isinstance(array, MappedArray)
    copy = array.numpy()
    copy += 1.0
    np.testing.assert_array_equal(array.numpy(), VALUES)
    assert is_mapped(from_recorddict(content).arrays["arrays"]["w"])
    own = ArrayRecord({"w": Array(VALUES), "n": Array(np.array(3))})
    assert content["arrays"].object_id == own.object_id
    assert dict(content["m"]) == {"a": 1}


def test_what_lies_in_memory_stays_as_it_is() -> None:
    content = to_mapped_recorddict(Records(arrays={"arrays": {"w": VALUES}}))
    assert not isinstance(content["arrays"]["w"], MappedArray)
