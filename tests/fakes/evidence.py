"""What a run leaves in S3, made without running it: six devices, two rounds, a comparison.

Device N has the loss ``|w - N|`` for a model of one weight ``w``, and ``10 * (N + 1)`` examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from support.paths import APPS

from edge.training.app_bundle import load_app
from fakes.objects import MemoryObjects
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.keys import app_key, cohorts_key, model_key, round_key, spec_key
from fl_runtime.run.records import (
    COMPARISON,
    Comparison,
    DeviceComparison,
    DeviceRow,
    RoundBytes,
    RoundRecord,
    RoundSeconds,
)
from fl_runtime.run.spec import Champion, RunSpec
from registry.evidence.collect import collect
from registry.evidence.model import Evidence
from registry.model_version import (
    DIGEST_TAG,
    METRIC,
    MLFLOW_RUN,
    PENDING,
    RUN_TAG,
    SCORE_TAG,
    Package,
)

DEVICES = [f"d{index}" for index in range(6)]
LABELS = {name: {"site": "north" if index < 4 else "south"} for index, name in enumerate(DEVICES)}
CHAMPION = Champion(
    model_version="x/1", digest="c" * 64, app="a" * 64, key="runs/run-0/model/model.safetensors"
)
CANDIDATE = 700 / 210
"""The mean of the devices' optima, weighted by examples."""


def loss(index: int, weight: float) -> dict[str, Any]:
    return {"loss": abs(weight - index), "num-examples": 10 * (index + 1)}


def device_row(device: str, kind: str = "train", **changes: Any) -> DeviceRow:
    index = DEVICES.index(device)
    row = DeviceRow(
        round=1,
        phase="p",
        kind=kind,
        device=device,
        status="ok",
        code="",
        reason="",
        digest=f"{index:064x}",
        seconds_fetch=0.1,
        seconds_work=1.0,
        seconds_upload=0.1,
        bytes_up=100,
        bytes_down=200,
        metrics=loss(index, CANDIDATE),
    )
    return msgspec.structs.replace(row, **changes)


def round_record(number: int, devices: Sequence[DeviceRow] | None = None) -> RoundRecord:
    if devices is None:
        devices = [device_row(name, kind) for kind in ("train", "evaluate") for name in DEVICES]
    trained = {row.device for row in devices if row.kind == "train" and row.status == "ok"}
    return RoundRecord(
        round=number,
        train={"loss": 3.0 / number},
        evaluate={"loss": 2.0 / number, "num-examples": 210},
        server={},
        participants=len(trained),
        failures={},
        seconds=RoundSeconds(total=2.0),
        bytes=RoundBytes(up=600, down=1200),
        devices=list(devices),
    )


def comparison(champion: float | None = 9.0, **changes: Any) -> Comparison:
    """Candidate and champion, whose weight is ``champion``, on all devices."""
    rows = [
        DeviceComparison(
            device=name,
            cohort=f"c{index % 3:04d}",
            labels=LABELS[name],
            candidate=loss(index, CANDIDATE),
            champion=loss(index, champion) if champion is not None else {},
        )
        for index, name in enumerate(DEVICES)
    ]
    found = Comparison(
        champion=CHAMPION if champion is not None else None, round=2, devices=rows, seconds=1.0
    )
    return msgspec.structs.replace(found, **changes)


def package(**metadata: str) -> Package:
    given = {
        RUN_TAG: "run-1",
        SCORE_TAG: "-1.0",
        DIGEST_TAG: "d" * 64,
        METRIC: "loss",
        MLFLOW_RUN: "m" * 32,
        **metadata,
    }
    return Package(
        arn="arn:package",
        group="x",
        version=2,
        approval=PENDING,
        metadata=given,
        model_data="s3://b/k",
    )


@cache
def digits() -> tuple[str, bytes]:
    """The digits app's digest and bundle."""
    app = load_app(APPS / "digits")
    return app.digest(), app.bundle()


def leave(
    objects: MemoryObjects, compared: Comparison, rounds: Sequence[RoundRecord] | None = None
) -> None:
    """Put what the run ``run-1`` of the digits app leaves."""
    app, bundle = digits()
    spec = RunSpec(
        run="run-1",
        fleet="f",
        app=app,
        app_name="x",
        num_rounds=3,  # it ended early
        min_devices=1,
        devices_per_proxy=2,
        run_config={"epochs": 2},
    )
    objects.put(spec_key("run-1"), msgspec.json.encode(spec))
    objects.put(cohorts_key("run-1"), msgspec.json.encode(form_cohorts("f", DEVICES, 2, LABELS)))
    objects.put(model_key("run-1", COMPARISON), msgspec.json.encode(compared))
    objects.put(app_key(spec.app), bundle)
    for record in rounds or [round_record(1), round_record(2)]:
        objects.put(round_key("run-1", record.round), msgspec.json.encode(record))


def evidence(
    champion: float | None = 9.0,
    *,
    rounds: Sequence[RoundRecord] | None = None,
    devices: Sequence[DeviceStatus] = (),
    devices_compared: list[DeviceComparison] | None = None,
    **changes: Any,
) -> Evidence:
    """The evidence of version x/2. ``changes``: of the comparison."""
    objects = MemoryObjects()
    if devices_compared is not None:
        changes["devices"] = devices_compared
    leave(objects, comparison(champion, **changes), rounds)
    return collect(package(), "x/2", objects, lambda _: devices)
