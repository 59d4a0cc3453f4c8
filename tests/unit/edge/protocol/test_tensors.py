"""Weights files are those of the safetensors library, byte for byte."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from safetensors.numpy import save

from edge.protocol.errors import ProtocolError
from edge.protocol.records import (
    Records,
    decode_records,
    digest,
    encode_records,
    encode_skeleton,
    write_records,
)
from edge.protocol.tensors import Bounds, is_number

KINDS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
ARRAYS = {
    f"layer {number}": np.arange(size).astype(kind).reshape(shape)
    for number, (kind, size, shape) in enumerate(
        [*((kind, 6, (2, 3)) for kind in KINDS), ("f4", 0, (0, 4)), ("f4", 1, ()), ("i1", 3, (3,))]
    )
}
RECORDS = Records(
    arrays={"arrays": {**ARRAYS, "turned": np.arange(6.0).reshape(2, 3).T}},
    metrics={"m": {'odd "name" \\ \n \N{SNOWMAN}': float("inf")}},
)


def test_the_file_equals_the_librarys_own() -> None:
    """So the digest of a model does not depend on who wrote it, or in which version."""
    tensors = {
        str(number): np.ascontiguousarray(array).reshape(array.shape)
        for number, array in enumerate(RECORDS.arrays["arrays"].values())
    }
    blob = encode_records(RECORDS)
    assert blob == save(tensors, metadata={"records": encode_skeleton(RECORDS)})
    stream = io.BytesIO()
    assert write_records(RECORDS, stream) == (digest(blob), len(blob))
    assert stream.getvalue() == blob


def test_what_is_no_number_is_refused_before_a_byte_is_written() -> None:
    assert is_number(np.dtype(">f4"))
    assert not is_number(np.dtype("c8"))
    stream = io.BytesIO()
    with pytest.raises(ProtocolError, match="complex64"):
        write_records(Records(arrays={"a": {"x": np.zeros(2, "c8")}}), stream)
    assert stream.getvalue() == b""


def file_of(shape: list[int], dtype: str = "F32", data: bytes = b"") -> bytes:
    """A weights file of one tensor, as anybody may write it."""
    skeleton = '{"order":["a"],"arrays":{"a":["w"]},"metrics":{},"configs":{}}'
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"records": skeleton}, "0": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_a_tensor_has_at_most_32_dimensions_each_of_a_size_that_is_possible() -> None:
    read = decode_records(file_of([1] * 32, data=b"\0" * 4))
    assert read.arrays["a"]["w"].ndim == 32
    for shape, data in (
        ([1] * 33, b"\0" * 4),
        ([0, *[1] * 30, 2**63], b""),
        ([0, *[1] * 30, -1], b""),
        ([2**63, 0], b""),
    ):
        with pytest.raises(ProtocolError):
            decode_records(file_of(shape, data=data))


def test_a_file_has_as_many_tensors_as_it_may_and_a_whole_header() -> None:
    blob = encode_records(Records(arrays={"a": {name: np.zeros(1) for name in "vwx"}}))
    assert list(decode_records(blob, Bounds(tensors=3)).arrays["a"]) == ["v", "w", "x"]
    with pytest.raises(ProtocolError, match="tensors"):
        decode_records(blob, Bounds(tensors=2))
    length = int.from_bytes(blob[:8], "little")
    assert decode_records(blob, Bounds(header=length)).arrays
    with pytest.raises(ProtocolError, match=f"a header of {length} bytes"):
        decode_records(blob, Bounds(header=length - 1))
    for size in range(8):
        with pytest.raises(ProtocolError) as refused:
            decode_records(blob[:size])
        assert refused.value.code == "truncated"
    for names in ("w", "wx", "layer"):
        head = encode_records(Records(arrays={names: {}}))[:8]
        assert int.from_bytes(head, "little") % 8 == 0, "tensors begin where floats may"


@pytest.mark.parametrize("more", [1, 4, 8, 9])
def test_a_header_that_claims_more_than_there_is_is_refused(more: int) -> None:
    blob = encode_records(Records(metrics={"m": {"loss": 0.5}}))
    length = int.from_bytes(blob[:8], "little")
    assert length == len(blob) - 8
    assert decode_records(blob).metrics
    with pytest.raises(ProtocolError, match="claims a header"):
        decode_records((length + more).to_bytes(8, "little") + blob[8:])
