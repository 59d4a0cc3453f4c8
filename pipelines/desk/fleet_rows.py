"""The devices as ``mledgeops fleet`` and notebooks show them."""

from __future__ import annotations

from typing import Any

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Heartbeat
from edge.protocol.text import parse_json, printable
from fl_runtime.run.blocking import Block, BlockList
from fl_runtime.run.devices import DeviceStatus, DeviceTable
from fl_runtime.run.eligibility import foreign_orders
from pipelines.desk.moments import moment
from registry.evidence.drift import drift_of

_LAST_MOMENT = 4e9
"""Unix seconds, in the year 2096, as in a heartbeat."""


def fleet_rows(dynamodb: Any, iot_data: Any, table: str) -> list[dict[str, Any]]:
    """All devices that were ever heard of, by fleet and name. ``table``: the devices table."""
    blocked = BlockList(dynamodb, table).read()
    rows = [
        {**device_row(status, iot_data), "blocked": _blocked(blocked.get(status.device))}
        for status in DeviceTable(dynamodb, table).all()
    ]
    return sorted(rows, key=lambda row: (row["fleet"], row["device"]))


def _blocked(block: Block | None) -> str:
    return f"by {block.by}: {block.reason}" if block is not None else ""


def device_row(status: DeviceStatus, iot_data: Any) -> dict[str, Any]:
    """A device by its last heartbeat; its model by its shadow where it is offline."""
    beat = status.heartbeat
    model, since = _model(status.device, beat, iot_data)
    return {
        "fleet": status.fleet,
        "device": status.device,
        "model_version": model,
        "state": beat.state if beat is not None else "malformed heartbeat",
        "since": since,
        "last_seen": moment(status.last_seen),
        **_serving(status.device, beat),
        "left_out": foreign_orders(beat) if beat is not None and beat.state != "offline" else "",
    }


def _model(device: str, beat: Heartbeat | None, iot_data: Any) -> tuple[str, str]:
    """The model that a device runs, and since when (ISO 8601, or empty)."""
    if beat is not None and beat.state != "offline":
        return beat.model, moment(beat.since) if beat.since else ""
    try:
        payload = iot_data.get_thing_shadow(thingName=device)["payload"].read()
    except iot_data.exceptions.ResourceNotFoundException:
        return "", ""
    return reported_model(payload)


def reported_model(shadow: bytes) -> tuple[str, str]:
    """The model of a device's shadow, and since when (ISO 8601). Both are empty when it has none,
    or something else in its place: a device writes what it likes into its own shadow.
    """
    try:
        document: dict[str, Any] = parse_json(shadow, dict[str, Any], "The shadow")
    except ProtocolError:
        return "", ""
    version = _nested(document, "state", "reported", "model", "version")
    stamp = _nested(document, "metadata", "reported", "model", "version", "timestamp")
    if not isinstance(version, str):
        return "", ""
    known = isinstance(stamp, int | float) and 0 < stamp < _LAST_MOMENT
    return printable(version, 80), moment(float(stamp)) if known else ""


def _serving(device: str, beat: Heartbeat | None) -> dict[str, Any]:
    """Predictions so far, and the drift of inputs and residuals where it is known."""
    if beat is None or beat.serving is None:
        return {"predictions": 0, "drift": None, "residual": None}
    served = drift_of({device: beat.serving})
    return {
        "predictions": served.predictions,
        "drift": round(served.score, 2) if served.devices else None,
        "residual": None if served.residual is None else round(served.residual, 2),
    }


def _nested(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document
