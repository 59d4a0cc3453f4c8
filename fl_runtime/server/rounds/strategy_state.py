"""A strategy's own state, such as Adam's moments, as records.

Flower's strategies keep it in plain attributes: scalars, and arrays in a dict, a list or an
ArrayRecord. A wrapped strategy's attributes have the wrapper's attribute name as a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

from edge.protocol.records import ArrayMap, Records, ValueMap

_SCALARS, _KINDS = "strategy-scalars", "strategy-kinds"
_ARRAYS = "strategy:"


def read_state(strategy: Strategy) -> Records:
    """The attributes that hold arrays or plain values; all others are left out."""
    arrays: dict[str, ArrayMap] = {}
    scalars: ValueMap = {}
    kinds: ValueMap = {}
    for path, value in _attributes(strategy):
        if isinstance(value, bool | int | float | str):
            scalars[path] = value
        elif (packed := _pack(value)) is not None:
            kinds[path], arrays[_ARRAYS + path] = packed
    return Records(arrays=arrays, configs={_SCALARS: scalars, _KINDS: kinds})


def restore_state(strategy: Strategy, state: Records) -> None:
    """The inverse of :func:`read_state`, in place."""
    for path, value in state.configs[_SCALARS].items():
        _assign(strategy, path, value)
    for path, kind in state.configs[_KINDS].items():
        arrays = {key: np.array(array) for key, array in state.arrays[_ARRAYS + path].items()}
        _assign(strategy, path, _unpack(str(kind), arrays))


def _attributes(strategy: Strategy, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            yield from _attributes(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _pack(value: Any) -> tuple[str, ArrayMap] | None:
    """(kind, arrays) of a value that holds arrays; None for anything else."""
    if isinstance(value, ArrayRecord):
        return "record", {key: array.numpy() for key, array in value.items()}
    if isinstance(value, dict) and _are_arrays(list(value.values())):
        return "dict", {key: np.asarray(item) for key, item in value.items()}
    if isinstance(value, list) and _are_arrays(value):
        return "list", {str(index): np.asarray(item) for index, item in enumerate(value)}
    return None


def _unpack(kind: str, arrays: ArrayMap) -> Any:
    if kind == "record":
        return ArrayRecord({key: Array(array) for key, array in arrays.items()})
    return arrays if kind == "dict" else list(arrays.values())


def _are_arrays(values: list[Any]) -> bool:
    # Arithmetic turns an array without dimensions into a numpy scalar (np.generic).
    return bool(values) and all(isinstance(item, np.ndarray | np.generic) for item in values)


def _assign(strategy: Strategy, path: str, value: Any) -> None:
    *outer, name = path.split(".")
    holder: Any = strategy
    for part in outer:
        holder = getattr(holder, part)
    setattr(holder, name, value)
