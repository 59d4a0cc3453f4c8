"""Drift by feature and group: which input moved, and on which devices."""

from __future__ import annotations

from edge.protocol.messages import Heartbeat, Moments, Served, Serving
from fl_runtime.run.devices import DeviceStatus
from pipelines.desk.drift_rows import drift_rows


def status(device: str, region: str, wind: float, count: int = 500) -> DeviceStatus:
    """A device whose wind has moved from 5 to ``wind``, and whose temperature has not."""
    inputs = [
        Served("temperature", Moments(500, 10.0, 2.0), Moments(count, 10.0, 2.0)),
        Served("wind", Moments(500, 5.0, 1.0), Moments(count, wind, 2.0)),
    ]
    beat = Heartbeat(
        state="idle",
        model="farm/2",
        labels={"region": region},
        serving=Serving(predictions=1000, inputs=inputs),
    )
    return DeviceStatus(fleet="f", device=device, last_seen=0.0, heartbeat=beat)


def test_drift_is_told_by_feature_for_everyone_and_for_each_group() -> None:
    rows = drift_rows(
        [
            status("a", "north", 8.0),
            status("b", "north", 7.0),
            status("c", "south", 5.0),
            status("new", "south", 9.0, count=3),  # too few predictions to tell
            DeviceStatus(fleet="f", device="broken", last_seen=0.0, heartbeat=None),
        ]
    )
    shifts = {(row["group"], row["feature"]): (row["devices"], row["shift"]) for row in rows}
    assert shifts == {
        ("all", "wind"): (3, 2.0),
        ("all", "temperature"): (3, 0.0),
        ("region=north", "wind"): (2, 2.5),
        ("region=north", "temperature"): (2, 0.0),
        ("region=south", "wind"): (1, 0.0),
        ("region=south", "temperature"): (1, 0.0),
    }
    assert [row["feature"] for row in rows[:2]] == ["wind", "temperature"], "the largest first"
    assert rows[0]["spread"] == 2.0
    assert drift_rows([]) == []
