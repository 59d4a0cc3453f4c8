"""Updates in mapped files as Flower's records, whose pages are given back once they are read."""

from __future__ import annotations

from typing import Any

from flwr.app import Array, RecordDict
from numpy.typing import NDArray

from edge.protocol.records import Records
from edge.training.flower_compat import ViewArray, to_recorddict
from fl_runtime.aggregation.mapped import is_mapped, release


class MappedArray(ViewArray):
    """Flower's array over a mapped file. Strategies read one array of each update after the other:
    what they have read must not stay in memory.
    """

    def numpy(self) -> NDArray[Any]:
        """Return a copy that the app may write to."""
        copy = super().numpy()
        release([self.view()])
        return copy


# Flower writes the class's name into the bytes from which it makes an object's id.
MappedArray.__qualname__ = Array.__qualname__


def to_mapped_recorddict(records: Records) -> RecordDict:
    """Convert wire records to Flower's RecordDict, arrays in files to :class:`MappedArray`."""
    content = to_recorddict(records)
    for record in content.array_records.values():
        for key, array in record.items():
            if isinstance(array, ViewArray) and is_mapped(array.view()):
                record[key] = MappedArray(array.view())
    return content
