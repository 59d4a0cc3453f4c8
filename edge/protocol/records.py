"""Flower's RecordDict on the wire: arrays as safetensors, metrics and configs as JSON.

Legend: a *record* is a named group (``arrays``, ``metrics``, ``config``); the *skeleton* is the
JSON of everything but the array data, in the app's order, because Flower clients rely on the order
of arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError
from edge.protocol.opaque import Form, OpaqueArray, as_bytes, forms_of, opaque_array
from edge.protocol.tensors import Bounds, Data, bytes_of, parts_of, split, tensors_in
from edge.protocol.text import parse_json
from edge.protocol.values import Scalar, Tensors, Value, ValueMap, pack_map, unpack_map

__all__ = [
    "ArrayMap",
    "Bounds",
    "Records",
    "Scalar",
    "Value",
    "ValueMap",
    "bounds_of",
    "decode_records",
    "decode_skeleton",
    "digest",
    "encode_parts",
    "encode_records",
    "encode_skeleton",
    "merge",
    "write_records",
]

ArrayMap = dict[str, NDArray[Any]]
"""Arrays by name. One of the type :class:`~edge.protocol.opaque.OpaqueArray` is not numbers."""
_BOUNDS = Bounds()
_MORE_TENSORS = 64
"""Tensors beside a model's: long values of metrics and configs."""
_MORE_NUMBERS = 2**17
"""Numbers in those that are lists. More than 100,000 metrics are refused anyway."""


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


class _Skeleton(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    order: list[str]
    arrays: dict[str, list[str]]
    metrics: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    opaque: dict[str, dict[str, Form]] = {}
    """Labels of arrays that are not numbers, by record and array."""


def digest(blob: bytes | memoryview) -> str:
    """Return the SHA-256 in lower-case hexadecimal: an object is named and verified by it."""
    return hashlib.sha256(blob).hexdigest()


def encode_skeleton(records: Records) -> str:
    """Encode everything but the array data as JSON: groups, array names, metrics, configs.

    Raises:
        ProtocolError: A metric or config has a type that Flower does not send.

    """
    return _skeleton_of(records, None)


def decode_skeleton(text: str | bytes) -> Records:
    """Parse a skeleton that has no arrays. Raises ProtocolError."""
    skeleton = _parse_skeleton(text)
    if any(skeleton.arrays.values()):
        raise ProtocolError(
            "arrays-missing", "The skeleton names arrays that did not come with it."
        )
    return _assemble(skeleton, {name: {} for name in skeleton.arrays}, {})


def encode_parts(records: Records, data: Data = bytes_of) -> Iterator[bytes | memoryview]:
    """Encode as a weights file, piece by piece: the header, then views on the arrays.

    The tensors are named ``0``, ``1`` ...; the skeleton is in the metadata, and long metrics and
    configs are tensors behind the arrays. Raises ProtocolError before it yields anything.
    ``data`` makes the bytes of a tensor whose array gives no more than dtype and shape.
    """
    long: Tensors = []
    text = _skeleton_of(records, long)
    arrays = [array for group in records.arrays.values() for array in group.values()]
    tensors = {
        str(number): as_bytes(array) if isinstance(array, OpaqueArray) else np.asarray(array)
        for number, array in enumerate([*arrays, *long])
    }
    return parts_of(tensors, text, data)


def encode_records(records: Records) -> bytes:
    """Encode as a weights file: see :func:`encode_parts`."""
    return b"".join(encode_parts(records))


def write_records(records: Records, stream: BinaryIO) -> tuple[str, int]:
    """Write a weights file without a copy of the arrays in memory; returns digest and size."""
    checksum, size = hashlib.sha256(), 0
    for part in encode_parts(records):
        stream.write(part)
        checksum.update(part)
        size += len(part)
    return checksum.hexdigest(), size


def bounds_of(names: Iterable[str]) -> Bounds:
    """Return the bounds of a file with arrays of these names, and whatever metrics beside them."""
    known = list(names)
    # At worst each character of a name is escaped twice, since the skeleton is JSON in JSON; 400
    # bytes hold the rest of a tensor's description. 1 MiB is for metrics and configurations.
    size = 2**20 + sum(400 + 16 * len(name) for name in known)
    return Bounds(header=size, tensors=len(known) + _MORE_TENSORS, numbers=_MORE_NUMBERS)


def decode_records(blob: bytes | memoryview, bounds: Bounds = _BOUNDS) -> Records:
    """Decode :func:`encode_records`. The arrays are read-only views on ``blob``.

    A forged file costs no memory: beside the views, only the header is copied, and the metrics and
    configs that the file holds.

    Raises:
        ProtocolError: Anything is malformed, or beyond the bounds. Nothing else is raised, whatever
            the file holds.

    """
    header, data = split(memoryview(blob), bounds)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("records"), str):
        raise ProtocolError("malformed", "The weights file lacks its record description.")
    skeleton = _parse_skeleton(metadata["records"])
    tensors = tensors_in(header, data)
    groups: dict[str, ArrayMap] = {}
    position = 0
    for name, keys in skeleton.arrays.items():
        groups[name] = {}
        forms = skeleton.opaque.get(name, {})
        for key in keys:
            if str(position) not in tensors or key in groups[name]:
                raise ProtocolError("malformed", f"Array {key[:60]!r} is missing or named twice.")
            found = tensors.pop(str(position))
            groups[name][key] = _opaque(found, forms[key]) if key in forms else found
            position += 1
    return _assemble(skeleton, groups, _numbered(tensors, position, bounds))


def _opaque(tensor: NDArray[Any], form: Form) -> OpaqueArray:
    if tensor.dtype != np.uint8 or tensor.ndim != 1:
        raise ProtocolError("malformed", "An array that is no numbers is no row of bytes.")
    return opaque_array(tensor.data, form)


def _numbered(tensors: ArrayMap, first: int, bounds: Bounds) -> dict[int, NDArray[Any]]:
    """The tensors behind the arrays, by their number from 0. Raises ProtocolError for others, and
    for more numbers than the lists may hold.
    """
    numbers = sum(tensor.size for tensor in tensors.values() if tensor.dtype != np.uint8)
    if numbers > bounds.numbers:
        raise ProtocolError(
            "too-large",
            f"The lists of metrics and configs hold {numbers} numbers, and may hold"
            f" {bounds.numbers}: use arrays for more.",
        )
    found = {number: tensors.get(str(first + number)) for number in range(len(tensors))}
    if any(tensor is None for tensor in found.values()):
        raise ProtocolError("malformed", f"{len(tensors)} tensors came that are not described.")
    return {number: tensor for number, tensor in found.items() if tensor is not None}


def merge(skeleton: Records, arrays: Mapping[str, ArrayMap]) -> Records:
    """Join the skeleton of a message with the arrays of an object."""
    return Records(
        arrays={**skeleton.arrays, **arrays},
        metrics=skeleton.metrics,
        configs=skeleton.configs,
        order=skeleton.order,
    )


def _skeleton_of(records: Records, long: Tensors | None) -> str:
    opaque = {name: forms_of(group) for name, group in records.arrays.items()}
    skeleton = _Skeleton(
        order=list(records.names()),
        arrays={name: list(group) for name, group in records.arrays.items()},
        metrics={name: pack_map(group, long) for name, group in records.metrics.items()},
        configs={name: pack_map(group, long) for name, group in records.configs.items()},
        opaque={name: forms for name, forms in opaque.items() if forms},
    )
    return msgspec.json.encode(skeleton).decode()


def _parse_skeleton(text: str | bytes) -> _Skeleton:
    return parse_json(text, _Skeleton, "The record description")


def _assemble(
    skeleton: _Skeleton, arrays: dict[str, ArrayMap], long: dict[int, NDArray[Any]]
) -> Records:
    """Join the parts. Raises ProtocolError unless each long value is used once."""
    records = Records(
        arrays=arrays,
        metrics={
            name: unpack_map(group, long, metric=True) for name, group in skeleton.metrics.items()
        },
        configs={
            name: unpack_map(group, long, metric=False) for name, group in skeleton.configs.items()
        },
        order=tuple(skeleton.order),
    )
    if long:
        raise ProtocolError("malformed", f"{len(long)} tensors came that are not described.")
    return records
