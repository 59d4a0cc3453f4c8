"""The values of metrics and configs as JSON: what Flower's records may hold, and nothing else.

JSON has neither bytes nor NaN, so these are tagged. In a weights file, long values are tensors
instead of text: a config of 20 MB costs 20 MB, and no header beyond its bounds.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError

Scalar = int | float | str | bytes | bool
Value = Scalar | list[int] | list[float] | list[str] | list[bytes] | list[bool]
ValueMap = dict[str, Value]

LONG_BYTES = 2**16
"""Bytes or characters of a value from which on a weights file carries it as a tensor."""
LONG_LIST = 2**13
"""Numbers of a list, likewise."""

_KINDS: tuple[type[Any], ...] = (bool, int, float, str, bytes)
"""In the order in which Flower tries them; a bool is an int in Python."""
_LISTS = {bool: np.dtype("?"), int: np.dtype("<i8"), float: np.dtype("<f8")}

Tensors = list[NDArray[Any]]


def pack_map(group: Mapping[str, Value], tensors: Tensors | None = None) -> dict[str, Any]:
    """Return a record's values as JSON can carry them.

    NumPy's scalars and other subclasses become the plain type, as on Flower's own wire.

    Args:
        group: A metric or config record.
        tensors: Takes long values; None: everything becomes text.

    Raises:
        ProtocolError: ``type``, with the value's name and type.

    """
    return {key: _pack_value(key, value, tensors) for key, value in group.items()}


def unpack_map(
    group: Mapping[str, Any], tensors: dict[int, NDArray[Any]], *, metric: bool
) -> ValueMap:
    """Return what :func:`pack_map` was given. Raises ProtocolError.

    Args:
        group: From JSON.
        tensors: Long values by number; each that is used is taken out.
        metric: Whether it is a metric record, which holds only numbers.

    """
    return {key: _unpack_value(value, tensors, metric=metric) for key, value in group.items()}


def _pack_value(key: str, value: Any, tensors: Tensors | None) -> Any:
    if not isinstance(value, list):
        return _pack(_plain(key, value), tensors)
    kind = _kind_of(key, value)
    items: list[Any] = [str.__str__(item) if kind is str else kind(item) for item in value]
    if kind is int and not all(_has_64_bits(item) for item in items):
        raise _refused(key, "a list with an integer of more than 64 bits")
    if tensors is None or len(items) < LONG_LIST or kind not in _LISTS:
        return [_pack(item, tensors) for item in items]
    dtype = np.dtype("<u8") if kind is int and max(items) >= 2**63 else _LISTS[kind]
    if dtype.kind == "u" and min(items) < 0:  # no tensor holds both: Flower's wire does not either
        raise _refused(key, "a list of integers that 64 bits cannot hold")
    return _tensor("$list", np.array(items, dtype), tensors)


def _kind_of(key: str, items: list[Any]) -> type[Any]:
    """The type that all items of a list have. Raises ProtocolError."""
    plain = [item.item() if isinstance(item, np.generic) else item for item in items]
    for kind in _KINDS:
        if all(isinstance(item, kind) for item in plain):
            return kind
    names = sorted({type(item).__name__ for item in items})
    raise _refused(key, f"a list of {', '.join(names)[:100]}")


def _plain(key: str, value: Any) -> Scalar:
    found = value.item() if isinstance(value, np.generic) else value
    for kind in _KINDS:
        if not isinstance(found, kind):
            continue
        if kind is int and not _has_64_bits(found):
            raise _refused(key, "an integer of more than 64 bits")
        # str() of a StrEnum is its name, and not its value.
        plain: Scalar = str.__str__(found) if kind is str else kind(found)
        return plain
    raise _refused(key, f"a {type(value).__name__}"[:100])


def _has_64_bits(value: int) -> bool:
    """Whether Flower could send an integer: as 64 bits, signed or unsigned."""
    return -(2**63) <= value < 2**64


def _refused(key: str, what: str) -> ProtocolError:
    return ProtocolError(
        "type",
        f"The value {str(key)[:60]!r} is {what}; metrics may be int or float, configs also str,"
        " bytes or bool, or a list of one of these.",
    )


def _pack(value: Scalar, tensors: Tensors | None) -> Any:
    """Tag bytes and non-finite numbers, which JSON does not have."""
    if isinstance(value, str | bytes) and tensors is not None and len(value) >= LONG_BYTES:
        tag, data = ("$bytes", value) if isinstance(value, bytes) else ("$text", value.encode())
        return _tensor(tag, np.frombuffer(data, np.uint8), tensors)
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


def _tensor(tag: str, array: NDArray[Any], tensors: Tensors) -> dict[str, int]:
    tensors.append(array)
    return {tag: len(tensors) - 1}


def _unpack_value(value: Any, tensors: dict[int, NDArray[Any]], *, metric: bool) -> Value:
    """Return a scalar, or a list whose items share one type, as Flower's records demand."""
    if isinstance(value, dict) and set(value) == {"$list"}:
        return _list(_take(value["$list"], tensors), metric=metric)
    if not isinstance(value, list):
        return _unpack(value, tensors, metric=metric)
    items = [_unpack(item, tensors, metric=metric) for item in value]
    if len({type(item) for item in items}) > 1:
        raise ProtocolError("malformed", "A list mixes types.")
    return items  # type: ignore[return-value]  # one type, checked above


def _list(array: NDArray[Any], *, metric: bool) -> Value:
    kinds = "iuf" if metric else "iufb"
    # Of the types that lists are sent in. Bytes, in particular, are not counted as numbers.
    known = array.dtype == np.dtype("<u8") or array.dtype in _LISTS.values()
    if array.ndim != 1 or not known or array.dtype.kind not in kinds:
        raise ProtocolError("malformed", "A long list is no list of numbers.")
    items: Value = array.tolist()
    return items


def _take(number: Any, tensors: dict[int, NDArray[Any]]) -> NDArray[Any]:
    if type(number) is not int or number not in tensors:
        raise ProtocolError("malformed", "A long value is missing or named twice.")
    return tensors.pop(number)


def _unpack(value: Any, tensors: dict[int, NDArray[Any]], *, metric: bool) -> Scalar:
    if isinstance(value, dict) and len(value) == 1:
        ((tag, text),) = value.items()
        if tag == "$float" and text in ("nan", "inf", "-inf"):
            return float(text)
        if tag in ("$bytes", "$text") and not metric:
            return _unpack_bytes(tag, text, tensors)
    if isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and _has_64_bits(value)
    ):
        return value
    if isinstance(value, bool | str) and not metric:
        return value
    raise ProtocolError(
        "malformed", f"A value of type {type(value).__name__} is not accepted here."
    )


def _unpack_bytes(tag: str, text: Any, tensors: dict[int, NDArray[Any]]) -> str | bytes:
    try:
        if isinstance(text, str) and tag == "$bytes":
            return base64.b64decode(text, validate=True)
        data = _take(text, tensors)
        if data.dtype != np.uint8 or data.ndim != 1:
            raise ProtocolError("malformed", "A long value is no row of bytes.")
        return data.tobytes() if tag == "$bytes" else data.tobytes().decode()
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            "malformed", "A byte string is not base64, or text not UTF-8."
        ) from error
