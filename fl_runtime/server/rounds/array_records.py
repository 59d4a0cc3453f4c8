"""Between Flower's ``ArrayRecord`` and our plain dictionaries of arrays."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord

from edge.protocol.records import ArrayMap
from fl_runtime.aggregation.weighted_mean import restore_dtypes
from fl_runtime.run.messages import ArraySpec


def to_arrays(record: ArrayRecord) -> ArrayMap:
    """The arrays by name, in the record's order."""
    return {key: value.numpy() for key, value in record.items()}


def to_record(arrays: ArrayMap) -> ArrayRecord:
    """The inverse of :func:`to_arrays`; the arrays are copied, since stored ones are read-only."""
    return ArrayRecord({key: Array(np.array(array)) for key, array in arrays.items()})


def with_dtypes(record: ArrayRecord, specs: list[ArraySpec]) -> ArrayRecord:
    """The record with the model's own dtypes.

    Adaptive strategies return float64: twice the payload, and another dtype than the model's.
    """
    restored = restore_dtypes(to_arrays(record), specs)
    return ArrayRecord({key: Array(value) for key, value in restored.items()})
