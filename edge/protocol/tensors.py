"""Weights files: safetensors, written without a copy and read as views.

https://github.com/huggingface/safetensors#format. No pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError
from edge.protocol.text import convert, printable

MAX_DIMENSIONS = 32
_ELEMENTS = 2**58
"""Above it NumPy cannot count the elements of a shape, not even those of an empty array."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""In the order in which safetensors stores tensors, so that each begins at a multiple of its size:
the same weights give the same file, and the same digest, as the library's own writer.
"""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES.values())}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a weights file may hold: reading one takes time and memory for each tensor, even for an
    empty one.
    """

    header: int = 16 * 2**20
    """Bytes of the header. A model of 100,000 tensors needs about 10 MB."""
    tensors: int = 100_000
    numbers: int = 2**22
    """Numbers in the lists of metrics and configs. In a file a number may take one byte, and in a
    Python list it takes 8 to 32.
    """


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether a tensor can be of this dtype, in whatever byte order."""
    return dtype.newbyteorder("<") in _NAMES


Data = Callable[[str, NDArray[Any]], Iterator[bytes | memoryview]]
"""Yields the bytes of a tensor, by its name and array."""


def bytes_of(name: str, array: NDArray[Any]) -> Iterator[bytes | memoryview]:  # noqa: ARG001
    """Yield an array's bytes: :data:`Data` of a tensor that is there as a whole."""
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    yield little.reshape(-1).view(np.uint8).data


def parts_of(
    tensors: Mapping[str, NDArray[Any]], text: str, data: Data = bytes_of
) -> Iterator[bytes | memoryview]:
    """Yield a file piece by piece: the header, then each tensor's bytes as views.

    Args:
        tensors: By name. Only those of another byte order or layout are copied, one at a time.
        text: Stored as ``records`` in the metadata.
        data: Makes the bytes of a tensor.

    """
    for array in tensors.values():
        _check_dtype(array)
    ordered = sorted(
        tensors.items(), key=lambda item: (_RANKS[item[1].dtype.newbyteorder("<")], item[0])
    )
    header: dict[str, Any] = {"__metadata__": {"records": text}}
    end = 0
    for name, array in ordered:
        dtype, start, end = _NAMES[array.dtype.newbyteorder("<")], end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (start, end)}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little") + encoded
    for name, array in ordered:
        if array.nbytes:
            yield from data(name, array)


def _check_dtype(array: NDArray[Any]) -> None:
    if not is_number(array.dtype):
        raise ProtocolError(
            "dtype", f"Arrays of dtype {array.dtype} cannot be sent: use floats, integers or bool."
        )


def split(view: memoryview, bounds: Bounds) -> tuple[dict[str, Any], memoryview]:
    """Return a file's header and data. Raises ProtocolError."""
    if len(view) < 8:
        raise ProtocolError("truncated", f"A weights file of {len(view)} bytes has no header.")
    length = int.from_bytes(view[:8], "little")
    if length > min(bounds.header, len(view) - 8):
        raise ProtocolError("malformed", f"The weights file claims a header of {length} bytes.")
    try:
        # The standard library's parser can refuse a key that appears twice. Of such a key, two
        # readers may each see another value.
        header = json.loads(
            bytes(view[8 : 8 + length]), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            "malformed", f"The weights file's header is not JSON: {printable(str(error), 300)}"
        ) from error
    if not isinstance(header, dict):
        raise ProtocolError("malformed", "The weights file's header is not a JSON object.")
    if len(header) > bounds.tensors + 1:
        raise ProtocolError("malformed", f"The weights file holds {len(header)} tensors.")
    return header, view[8 + length :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, and refuse repeated keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_number(token: str) -> None:
    """Refuse NaN and infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{token} is not JSON")


def tensors_in(header: dict[str, Any], data: memoryview) -> dict[str, NDArray[Any]]:
    """Return views on ``data``. The offsets must tile it: no byte is unread or read twice."""
    described = convert(header, dict[str, _Tensor], "The weights file's header")
    end = 0
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in sorted(described.items(), key=lambda item: item[1].data_offsets):
        start, stop = tensor.data_offsets
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise ProtocolError("dtype", f"Tensor dtype {tensor.dtype[:20]!r} is not accepted.")
        if not _is_possible(tensor.shape):
            raise ProtocolError("shape", "A tensor has an impossible size or too many dimensions.")
        if (
            start != end
            or stop - start != math.prod(tensor.shape) * dtype.itemsize
            or stop > len(data)
        ):
            raise ProtocolError("truncated", f"Tensor {name[:20]!r} does not fit the file.")
        arrays[name] = np.frombuffer(data[start:stop], dtype=dtype).reshape(tensor.shape)
        end = stop
    if end != len(data):
        raise ProtocolError(
            "truncated", f"{len(data) - end} bytes of the weights file belong to no tensor."
        )
    return arrays


def _is_possible(shape: list[int]) -> bool:
    """Whether NumPy can make an array of this shape. An empty array's other sizes count, too."""
    elements = 1
    for size in shape[: MAX_DIMENSIONS + 1]:
        elements *= max(size, 1)
        if size < 0 or elements > _ELEMENTS:
            return False
    return len(shape) <= MAX_DIMENSIONS
