"""Phase requests, results and stores for tests of a cohort."""

from __future__ import annotations

import numpy as np

from edge.protocol.messages import ObjectRef
from edge.protocol.records import Records, digest, encode_records, encode_skeleton
from fakes.objects import MemoryObjects
from fl_runtime.run.keys import arrays_key
from fl_runtime.run.messages import DeviceResult, OrderKey, PhaseRequest, Target, array_specs

PHASE = "00001-train-0001-00000000"
MODEL = {"w": np.zeros(3, np.float32)}
"""The global weights: shape (3,)."""
WEIGHTS = encode_records(Records(arrays={"arrays": MODEL}))


ORDER_KEY = OrderKey(bytes(32), b"{}", "signed")
"""Signs orders that nobody verifies."""


def phase_request(*devices: str, **changes: object) -> PhaseRequest:
    """A train phase over the model above; each device answers the message ``m-DEVICE``."""
    fields = {
        "run": "run-1",
        "fleet": "f",
        "cohort": "c0000",
        "phase": PHASE,
        "server_round": 1,
        "kind": "train",
        "app": "a" * 64,
        "targets": [Target(name, index, f"m-{name}") for index, name in enumerate(devices)],
        "content": encode_skeleton(Records(configs={"config": {"lr": 0.1}})),
        "arrays": ObjectRef(digest(WEIGHTS), len(WEIGHTS)),
        "seconds": 5.0,
        "flower_run_id": 1,
        "run_config": "{}",
        "key": ORDER_KEY,
        "fold": True,
        "specs": array_specs(MODEL),
        "size_limit": 10_000,
    }
    return PhaseRequest(**{**fields, **changes})


def stored_weights() -> MemoryObjects:
    """An object store that holds the global weights."""
    objects = MemoryObjects()
    objects.put(arrays_key("run-1", digest(WEIGHTS)), WEIGHTS)
    return objects


LAYOUT = {"loss": -1, "num-examples": -1}
"""The metrics that devices report in most tests."""


def device_result(device: str, **changes: object) -> DeviceResult:
    """A good result."""
    fields = {"device": device, "node_id": 1, "message_id": f"m-{device}", "status": "ok"}
    return DeviceResult(**{**fields, **changes})


def update(w: object = 0.0, examples: int = 10, **metrics: object) -> Records:
    """An update of the model; ``w`` is broadcast to its shape."""
    arrays = {"w": np.full(3, w, np.float32)}
    return Records(
        arrays={"arrays": arrays}, metrics={"metrics": {"num-examples": examples, **metrics}}
    )
