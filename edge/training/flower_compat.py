"""Every touch of Flower's private parts that a device needs, in one place.

Flower promises only ``flwr.app``, ``flwr.clientapp`` and ``flwr.serverapp``; the rest may move in a
patch release. tests/test_flower_compat.py fails first when it does.
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from edge.protocol.records import Records, Value
from edge.training.app_bundle import AppError

REPLY_TTL_SECONDS = 7 * 86_400.0
"""A message made here never expires by the device's clock: the server owns the deadline."""

_LEGACY = {"train": ("fitins", "fitres"), "evaluate": ("evaluateins", "evaluateres")}


def to_recorddict(records: Records) -> RecordDict:
    """Wire records as Flower's RecordDict, groups and arrays in their original order."""
    content = RecordDict()
    for name in records.names():
        if name in records.arrays:
            content[name] = ArrayRecord(
                {key: Array(np.asarray(value)) for key, value in records.arrays[name].items()}
            )
        elif name in records.metrics:
            content[name] = MetricRecord(cast(Any, records.metrics[name]))
        else:
            content[name] = ConfigRecord(cast(Any, records.configs[name]))
    return content


def from_recorddict(content: RecordDict) -> Records:
    """The inverse of :func:`to_recorddict`."""
    return Records(
        arrays={
            name: {key: array.numpy() for key, array in record.items()}
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
    """Tell Flower who this process is; ``Message(...)`` reads it when an app makes one."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, node_id


def incoming_message(
    content: RecordDict, *, kind: str, message_id: str, run_id: int, node_id: int
) -> Message:
    """The message a ClientApp is called with, as if it had come through a SuperNode."""
    metadata = Metadata(
        run_id=run_id,
        message_id=message_id,
        src_node_id=1,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=REPLY_TTL_SECONDS,
        message_type=kind,
    )
    return Message(content=content, metadata=metadata)


def call_client(app: ClientApp, message: Message, context: Context) -> RecordDict:
    """Run the app once; a ``client_fn`` app gets and gives its own record layout.

    Flower's NumPyClient reads ``fitins.*`` records while today's strategies send ``arrays`` and
    ``config``: the two are translated here, so any client works with any strategy.
    """
    kind = message.metadata.message_type
    arrays = list(message.content.array_records)
    legacy = (
        app._call is not None
        and kind in _LEGACY
        and not any(name.startswith(("fitins.", "evaluateins.")) for name in arrays)
    )
    if not legacy:
        return cast(RecordDict, app(message, context).content)
    names = list(message.content[arrays[0]]) if arrays else []
    message.content = _to_legacy(message.content, _LEGACY[kind][0])
    return _from_legacy(app(message, context).content, _LEGACY[kind][1], names)


def _to_legacy(content: RecordDict, prefix: str) -> RecordDict:
    arrays = next(iter(content.array_records.values()), ArrayRecord())
    config = next(iter(content.config_records.values()), ConfigRecord())
    return RecordDict({f"{prefix}.parameters": arrays, f"{prefix}.config": config})


def _from_legacy(content: RecordDict, prefix: str, names: list[str]) -> RecordDict:
    """FitRes or EvaluateRes records as one ``arrays`` and one ``metrics`` record."""
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
            {key: Array(tensor.numpy()) for key, tensor in zip(keys, tensors, strict=True)}
        )
    result["metrics"] = MetricRecord(metrics)
    return result
