"""All uses of Flower's private interfaces that a device needs.

Flower keeps only ``flwr.app``, ``flwr.clientapp`` and ``flwr.serverapp`` stable; the rest may
change in a patch release. tests/unit/edge/test_flower_compat.py fails first when it does.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from numpy.lib import format as npy
from numpy.typing import NDArray

from edge.protocol.opaque import NUMPY, Form, OpaqueArray, opaque_array, opened
from edge.protocol.records import Records, Value
from edge.protocol.tensors import is_number
from edge.training.app_bundle import AppError

REPLY_TTL_SECONDS = 7 * 86_400.0
"""Longer than any deadline: the server decides when a message is too late, not Flower's clock."""

_LEGACY = {"train": ("fitins", "fitres"), "evaluate": ("evaluateins", "evaluateres")}


class ViewArray(Array):  # type: ignore[misc]  # flwr's types are unknown to mypy
    """Flower's array over memory that lies elsewhere, such as in a mapped file.

    Nothing is copied before the app reads it, and then once: Flower's own holds a copy, and makes
    another for each reader.

    Args:
        view: The values.
        forget: Called after each copy: what lies under the view is not needed for a while.

    """

    def __init__(self, view: NDArray[Any], forget: Callable[[], None] = lambda: None) -> None:
        self.dtype, self.shape, self.stype = str(view.dtype), tuple(view.shape), NUMPY
        self._view = view
        self._forget = forget

    def __getattr__(self, name: str) -> Any:
        """Make ``data``, NumPy's file format, for whoever asks for it."""
        if name != "data" or "_view" not in self.__dict__:
            raise AttributeError(name)
        self.data = Array(np.asarray(self._view)).data
        self._forget()
        return self.data

    def numpy(self) -> NDArray[Any]:
        """Return a copy that the app may write to."""
        if "data" in self.__dict__:
            return cast("NDArray[Any]", super().numpy())
        values = np.array(self._view)
        self._forget()
        return values

    def __eq__(self, other: object) -> bool:
        """Compare as Flower's own array does, which compares the fields."""
        return (
            isinstance(other, Array)
            and (self.dtype, self.shape, self.stype) == (other.dtype, other.shape, other.stype)
            and self.data == other.data
        )

    def __reduce__(self) -> tuple[type[Array], tuple[Any, ...]]:
        """Pickle and copy as Flower's own array: the file stays here."""
        return Array, (self.dtype, self.shape, self.stype, self.data)

    __hash__ = None  # type: ignore[assignment]  # as Flower's own

    def view(self) -> NDArray[Any]:
        """Return the values without a copy, read-only."""
        return _view_of(self.data) if "data" in self.__dict__ else self._view


# Flower writes the class's name into the bytes from which it makes an object's id.
ViewArray.__qualname__ = Array.__qualname__


def _to_array(value: NDArray[Any], forget: Callable[[], None] = lambda: None) -> Array:
    if isinstance(value, OpaqueArray):
        data, form = opened(value)
        return Array(dtype=form.dtype, shape=tuple(form.shape), stype=form.stype, data=data)
    return ViewArray(value, forget)


def _from_array(array: Array) -> NDArray[Any]:
    """Return an array's values without a copy; its bytes and labels where it is no numbers."""
    if isinstance(array, ViewArray):
        return array.view()
    if array.stype == NUMPY and array.data:  # a legacy client's empty parameters have no bytes
        view = _view_of(array.data)
        if is_number(view.dtype):
            return view
    return opaque_array(array.data, Form(array.dtype, list(array.shape), array.stype))


def _view_of(data: bytes) -> NDArray[Any]:
    """Return a view on bytes in NumPy's file format, as ``numpy.load`` would return a copy."""
    stream = io.BytesIO(data)
    read = (
        npy.read_array_header_1_0 if npy.read_magic(stream)[0] == 1 else npy.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    if 0 in shape or dtype.hasobject:
        return cast("NDArray[Any]", np.load(io.BytesIO(data), allow_pickle=False))
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def to_recorddict(records: Records, forget: Callable[[], None] = lambda: None) -> RecordDict:
    """Convert wire records to Flower's RecordDict, groups and arrays in their order.

    ``forget`` as in :class:`ViewArray`.
    """
    content = RecordDict()
    for name in records.names():
        if name in records.arrays:
            # One by one: the constructor copies what it is given.
            record = content[name] = ArrayRecord()
            for key, value in records.arrays[name].items():
                record[key] = _to_array(value, forget)
        elif name in records.metrics:
            content[name] = MetricRecord(cast(Any, records.metrics[name]))
        else:
            content[name] = ConfigRecord(cast(Any, records.configs[name]))
    return content


def from_recorddict(content: RecordDict) -> Records:
    """Convert Flower's RecordDict to wire records: the inverse of :func:`to_recorddict`."""
    return Records(
        arrays={
            name: {key: _from_array(array) for key, array in record.items()}
            for name, record in content.array_records.items()
        },
        metrics={
            name: cast("dict[str, Value]", dict(record))
            for name, record in content.metric_records.items()
        },
        configs={
            name: cast("dict[str, Value]", dict(record))
            for name, record in content.config_records.items()
        },
        order=tuple(content.keys()),
    )


def set_identity(run_id: int, node_id: int) -> None:
    """Set the ids that Flower puts into each ``Message(...)`` which an app constructs."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, node_id


def incoming_message(
    content: RecordDict,
    *,
    kind: str,
    message_id: str,
    run_id: int,
    node_id: int,
    group_id: str = "",
) -> Message:
    """Build the message that a SuperNode would call a ClientApp with."""
    metadata = Metadata(
        run_id=run_id,
        message_id=message_id,
        src_node_id=1,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id=group_id,
        created_at=time.time(),
        ttl=REPLY_TTL_SECONDS,
        message_type=kind,
    )
    return Message(content=content, metadata=metadata)


def call_client(app: ClientApp, message: Message, context: Context) -> RecordDict:
    """Run the app once, and translate between the record layouts of old clients and strategies.

    Flower's NumPyClient (``client_fn``) reads ``fitins.*`` records, and current strategies send
    ``arrays`` and ``config``. With this translation any client works with any strategy.
    """
    kind = message.metadata.message_type
    arrays = list(message.content.array_records)
    # _call is set by client_fn only: an app with @app.train() handles messages itself. A message
    # without arrays is one of a mod's own, such as the stages of SecAgg+.
    legacy = (
        app._call is not None
        and kind in _LEGACY
        and arrays
        and not any(name.startswith(("fitins.", "evaluateins.")) for name in arrays)
    )
    if not legacy:
        return cast(RecordDict, app(message, context).content)
    names = list(message.content[arrays[0]])
    message.content = _to_legacy(message.content, _LEGACY[kind][0])
    return _from_legacy(app(message, context).content, _LEGACY[kind][1], names)


def _to_legacy(content: RecordDict, prefix: str) -> RecordDict:
    arrays = next(iter(content.array_records.values()), ArrayRecord())
    config = next(iter(content.config_records.values()), ConfigRecord())
    return RecordDict({f"{prefix}.parameters": arrays, f"{prefix}.config": config})


def _from_legacy(content: RecordDict, prefix: str, names: list[str]) -> RecordDict:
    """Convert FitRes or EvaluateRes records to one ``arrays`` and one ``metrics`` record."""
    status = content.config_records[f"{prefix}.status"]
    if status["code"] != 0:
        raise AppError(f"the client answered with status {status['code']}: {status['message']}")
    metrics: dict[str, Any] = {
        "num-examples": next(iter(content.metric_records[f"{prefix}.num_examples"].values()))
    }
    if f"{prefix}.loss" in content.metric_records:
        metrics["loss"] = next(iter(content.metric_records[f"{prefix}.loss"].values()))
    metrics.update(
        {
            key: value
            for key, value in content.config_records[f"{prefix}.metrics"].items()
            if isinstance(value, int | float)
        }
    )
    result = RecordDict()
    if f"{prefix}.parameters" in content.array_records:
        tensors = list(content.array_records[f"{prefix}.parameters"].values())
        keys = names if len(names) == len(tensors) else [str(i) for i in range(len(tensors))]
        result["arrays"] = ArrayRecord(
            {key: _to_array(_from_array(tensor)) for key, tensor in zip(keys, tensors, strict=True)}
        )
    result["metrics"] = MetricRecord(metrics)
    return result
