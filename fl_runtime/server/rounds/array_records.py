"""Between Flower's ``ArrayRecord`` and our plain dictionaries of arrays."""

from __future__ import annotations

from flwr.app import ArrayRecord, RecordDict

from edge.protocol.records import ArrayMap, Records
from edge.training.flower_compat import from_recorddict, to_recorddict
from fl_runtime.aggregation.weighted_mean import restore_dtypes
from fl_runtime.run.messages import ArraySpec

_NAME = "arrays"


def to_arrays(record: ArrayRecord) -> ArrayMap:
    """The arrays by name, in the record's order: read-only views, where that is possible."""
    return from_recorddict(RecordDict({_NAME: record})).arrays[_NAME]


def to_record(arrays: ArrayMap) -> ArrayRecord:
    """The inverse of :func:`to_arrays`. The record copies an array for whoever asks for it."""
    record: ArrayRecord = to_recorddict(Records(arrays={_NAME: arrays}))[_NAME]
    return record


def with_dtypes(record: ArrayRecord, specs: list[ArraySpec]) -> ArrayRecord:
    """The record with the model's own dtypes.

    Adaptive strategies return float64: twice the payload, and another dtype than the model's.
    """
    found = to_arrays(record)
    changed = {
        key: array
        for key, array in restore_dtypes(found, specs).items()
        if array.dtype != found[key].dtype
    }
    if not changed:
        return record
    made, restored = to_record(changed), ArrayRecord()
    for key, array in record.items():
        restored[key] = made.get(key, array)
    return restored
