"""Flower's RecordDict on the wire: arrays as safetensors, metrics and configs as JSON.

Legend: a *record* is a named group (``arrays``, ``metrics``, ``config``); the *skeleton* is the
JSON of everything but the array data, in the app's order, because Flower clients rely on the order
of arrays. No pickle: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from edge.protocol.errors import ProtocolError
from edge.protocol.text import convert, parse_json, printable

Scalar = int | float | str | bytes | bool
Value = Scalar | list[int] | list[float] | list[str] | list[bytes] | list[bool]
ArrayMap = dict[str, NDArray[Any]]
ValueMap = dict[str, Value]

MAX_DIMENSIONS = 32
_ELEMENTS = 2**58
"""Above it NumPy cannot count the elements of a shape, not even those of an empty array."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True, kw_only=True)
class Records:
    """The content of a Flower message: groups of arrays, metrics and configs.

    ``order`` lists the names of all groups in the app's order.
    """

    arrays: dict[str, ArrayMap] = field(default_factory=dict)
    metrics: dict[str, ValueMap] = field(default_factory=dict)
    configs: dict[str, ValueMap] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return each group's name once, in order; groups that ``order`` omits come last."""
        known = dict.fromkeys((*self.arrays, *self.metrics, *self.configs))
        first = [name for name in dict.fromkeys(self.order) if name in known]
        return tuple(dict.fromkeys((*first, *known)))


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a weights file may hold: reading one takes time and memory for each tensor, even for an
    empty one.
    """

    header: int = 16 * 2**20
    """Bytes of the header. A model of 100,000 tensors needs about 10 MB."""
    tensors: int = 100_000


class _Skeleton(msgspec.Struct, forbid_unknown_fields=True):
    order: list[str]
    arrays: dict[str, list[str]]
    metrics: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def digest(blob: bytes | memoryview) -> str:
    """Return the SHA-256 in lower-case hexadecimal: an object is named and verified by it."""
    return hashlib.sha256(blob).hexdigest()


def encode_skeleton(records: Records) -> str:
    """Encode everything but the array data as JSON: groups, array names, metrics, configs."""
    skeleton = _Skeleton(
        order=list(records.names()),
        arrays={name: list(group) for name, group in records.arrays.items()},
        metrics={name: _pack_map(group) for name, group in records.metrics.items()},
        configs={name: _pack_map(group) for name, group in records.configs.items()},
    )
    return msgspec.json.encode(skeleton).decode()


def decode_skeleton(text: str | bytes) -> Records:
    """Parse a skeleton that has no arrays. Raises ProtocolError."""
    skeleton = _parse_skeleton(text)
    if any(skeleton.arrays.values()):
        raise ProtocolError(
            "arrays-missing", "The skeleton names arrays that did not come with it."
        )
    return _assemble(skeleton, {name: {} for name in skeleton.arrays})


def encode_records(records: Records) -> bytes:
    """Encode as one safetensors file: tensors ``0``, ``1`` ..., the skeleton in its metadata."""
    tensors: ArrayMap = {}
    for group in records.arrays.values():
        for array in group.values():
            tensors[str(len(tensors))] = np.asarray(_little_endian(array), order="C")
    blob: bytes = save_safetensors(tensors, metadata={"records": encode_skeleton(records)})
    return blob


def bounds_of(names: Iterable[str]) -> Bounds:
    """Return the bounds of a file with arrays of these names, and whatever metrics beside them."""
    known = list(names)
    # At worst each character of a name is escaped twice, since the skeleton is JSON in JSON; 400
    # bytes hold the rest of a tensor's description. 1 MiB is for metrics and configurations.
    size = 2**20 + sum(400 + 16 * len(name) for name in known)
    return Bounds(header=size, tensors=len(known))


def decode_records(blob: bytes | memoryview, bounds: Bounds = Bounds()) -> Records:
    """Decode :func:`encode_records`. The arrays are read-only views on ``blob``.

    A forged file costs no memory: beside the views, only the header is copied.

    Raises:
        ProtocolError: Anything is malformed, or beyond the bounds. Nothing else is raised, whatever
            the file holds.

    """
    view = memoryview(blob)
    header, data = _split(view, bounds)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("records"), str):
        raise ProtocolError("malformed", "The weights file lacks its record description.")
    skeleton = _parse_skeleton(metadata["records"])
    tensors = _tensors(header, data)
    groups: dict[str, ArrayMap] = {}
    position = 0
    for name, keys in skeleton.arrays.items():
        groups[name] = {}
        for key in keys:
            if str(position) not in tensors or key in groups[name]:
                raise ProtocolError("malformed", f"Array {key[:60]!r} is missing or named twice.")
            groups[name][key] = tensors[str(position)]
            position += 1
    if position != len(tensors):
        raise ProtocolError("malformed", f"{len(tensors)} tensors came, {position} are described.")
    return _assemble(skeleton, groups)


def merge(skeleton: Records, arrays: Mapping[str, ArrayMap]) -> Records:
    """Join the skeleton of a message with the arrays of an object."""
    return Records(
        arrays={**skeleton.arrays, **arrays},
        metrics=skeleton.metrics,
        configs=skeleton.configs,
        order=skeleton.order,
    )


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """Convert to little-endian, the only byte order of safetensors."""
    if array.dtype.newbyteorder("<") not in _DTYPES.values():
        raise ProtocolError(
            "dtype", f"Arrays of dtype {array.dtype} cannot be sent: use floats, integers or bool."
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _split(view: memoryview, bounds: Bounds) -> tuple[dict[str, Any], memoryview]:
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


def _tensors(header: dict[str, Any], data: memoryview) -> ArrayMap:
    """Return views on ``data``. The offsets must tile it: no byte is unread or read twice."""
    described = convert(header, dict[str, _Tensor], "The weights file's header")
    end = 0
    arrays: ArrayMap = {}
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


def _parse_skeleton(text: str | bytes) -> _Skeleton:
    return parse_json(text, _Skeleton, "The record description")


def _assemble(skeleton: _Skeleton, arrays: dict[str, ArrayMap]) -> Records:
    return Records(
        arrays=arrays,
        metrics={name: _unpack_map(group, metric=True) for name, group in skeleton.metrics.items()},
        configs={
            name: _unpack_map(group, metric=False) for name, group in skeleton.configs.items()
        },
        order=tuple(skeleton.order),
    )


def _pack_map(group: Mapping[str, Value]) -> dict[str, Any]:
    return {
        key: [_pack(item) for item in value] if isinstance(value, list) else _pack(value)
        for key, value in group.items()
    }


def _pack(value: Scalar) -> Any:
    """Tag bytes and non-finite numbers, which JSON does not have."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


def _unpack_map(group: Mapping[str, Any], *, metric: bool) -> ValueMap:
    return {key: _unpack_value(value, metric=metric) for key, value in group.items()}


def _unpack_value(value: Any, *, metric: bool) -> Value:
    """Return a scalar, or a list whose items share one type, as Flower's records demand."""
    if not isinstance(value, list):
        return _unpack(value, metric=metric)
    items = [_unpack(item, metric=metric) for item in value]
    if len({type(item) for item in items}) > 1:
        raise ProtocolError("malformed", "A list mixes types.")
    return items  # type: ignore[return-value]  # one type, checked above


def _unpack(value: Any, *, metric: bool) -> Scalar:
    if isinstance(value, dict) and len(value) == 1:
        ((tag, text),) = value.items()
        if tag == "$float" and text in ("nan", "inf", "-inf"):
            return float(text)
        if tag == "$bytes" and isinstance(text, str) and not metric:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ProtocolError("malformed", "A byte string is not base64.") from error
    if isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    ):
        return value
    if isinstance(value, bool | str) and not metric:
        return value
    raise ProtocolError(
        "malformed", f"A value of type {type(value).__name__} is not accepted here."
    )
