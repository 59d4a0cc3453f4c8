"""Arrays that only their app can read arrive as they were, and nobody averages them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from edge.protocol.errors import ProtocolError
from edge.protocol.opaque import NUMPY, Form, OpaqueArray, opaque_array, opened
from edge.protocol.records import Records, decode_records, encode_records

FORM = Form("int4", [3, 3], "my.packed")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


@pytest.mark.parametrize("data", [b"\x01\x02\x03", b""])
def test_bytes_and_labels_arrive_beside_numbers(data: bytes) -> None:
    arrays = {"a": {"q": opaque_array(data, FORM), "w": np.ones(2, np.float32)}}
    found = decode_records(encode_records(Records(arrays=arrays))).arrays["a"]
    assert isinstance(found["q"], OpaqueArray)
    assert opened(found["q"]) == (data, FORM)
    assert found["w"].tolist() == [1.0, 1.0]


def test_arithmetic_on_one_is_an_error() -> None:
    with pytest.raises(TypeError):
        opaque_array(b"\x01\x02", FORM) + np.ones(2)


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros(1000))[:-1],
        npy(np.zeros(4)).replace(b"(4,)", b"(9,)"),
        npy(np.zeros(4)).replace(b"'<f8'", b"'|O8'"),
        b"\x93NUMPY\x09\x00",
    ],
)
def test_a_forged_numpy_header_is_refused(data: bytes) -> None:
    """NumPy would allocate what the header claims."""
    with pytest.raises(ProtocolError):
        opaque_array(data, Form("float64", [4], NUMPY))


def test_numpys_other_dtypes_are_let_through() -> None:
    data = npy(np.array([1 + 2j]))
    assert opened(opaque_array(data, Form("complex128", [1], NUMPY))).data == data


@pytest.mark.parametrize("array", [np.zeros(4, np.float32), np.zeros((2, 2), np.uint8)])
def test_only_a_row_of_bytes_is_an_array_of_the_apps_own(array: np.ndarray) -> None:
    blob = encode_records(Records(arrays={"a": {"q": opaque_array(b"\0" * array.nbytes, FORM)}}))
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    header["0"] |= {
        "dtype": {"f": "F32", "u": "U8"}[array.dtype.kind],
        "shape": list(array.shape),
    }
    text = json.dumps(header).encode()
    with pytest.raises(ProtocolError, match="no row of bytes"):
        decode_records(len(text).to_bytes(8, "little") + text + array.tobytes())
