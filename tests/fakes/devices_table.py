"""Rows of the devices table, as they are read."""

from __future__ import annotations

from edge.protocol.messages import Heartbeat, Serving
from fl_runtime.run.devices import DeviceStatus


def status(device: str, model: str | None = "", serving: Serving | None = None) -> DeviceStatus:
    """A device by its last heartbeat; ``model`` None: the heartbeat is malformed."""
    heartbeat = None if model is None else Heartbeat(state="idle", model=model, serving=serving)
    return DeviceStatus(fleet="f", device=device, last_seen=0.0, heartbeat=heartbeat)
