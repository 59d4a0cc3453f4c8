"""Predictions only by a signed model; the next model is used at the next call."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes.keys import document
from fakes.turbine import PREDICT, Turbine
from support.paths import APPS

from edge.protocol.records import (
    Records,
    digest,
    encode_records,
)
from edge.protocol.signed import Manifest
from edge.serving.model import POOLED, Model, NoModel, columns, residuals
from edge.serving.model_store import read_active
from edge.training.app_bundle import load_app


def test_the_model_in_use_predicts_and_the_next_one_takes_over_at_the_next_call(
    turbine: Turbine,
) -> None:
    model = Model(turbine.home)
    with pytest.raises(NoModel, match="no model yet"):
        model.predict([[1.0, 2.0]])
    app = turbine.app()
    turbine.use(2.0, app)
    assert model.predict([[1.0, 2.0], [3.0, 4.0]]).tolist() == [6.0, 14.0]
    assert model.version == "power/1"
    turbine.use(10.0, app)
    assert model.predict([{"wind": 1.0, "angle": 2.0}]).tolist() == [30.0]
    assert model.version == "power/2"
    # another version of the app, with the same module names
    turbine.use(1.0, turbine.app(PREDICT.replace("table.sum(axis=1)", "table.max(axis=1)")))
    assert model.predict([[1.0, 2.0]]).tolist() == [2.0]
    assert read_active(turbine.home / "models").since == 1000.0


def test_what_was_not_signed_never_predicts(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())
    pointer = turbine.home / "models" / "active.json"
    active = json.loads(pointer.read_text())
    weights = turbine.home / "models" / active["manifest"]["digest"]
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\x00")
    with pytest.raises(NoModel, match="not those that were signed"):
        Model(turbine.home).predict([[1.0, 2.0]])
    weights.write_bytes(good)
    for change in (
        {"signed": None},
        {
            "signed": {
                **active["signed"],
                "manifest": active["signed"]["manifest"].replace("power/1", "power/9"),
            }
        },
    ):
        pointer.write_text(json.dumps({**active, **change}))
        with pytest.raises(NoModel):
            Model(turbine.home).predict([[1.0, 2.0]])
    other = Manifest(
        **{
            **msgspec.to_builtins(read_active(turbine.home / "models").manifest),
            "model_version": "power/7",
        }
    )
    # only the signed text counts
    pointer.write_text(json.dumps({**active, "manifest": msgspec.to_builtins(other)}))
    model = Model(turbine.home)
    model.predict([[1.0, 2.0]])
    assert model.version == "power/1"


def test_an_app_without_predict_or_with_one_that_cannot_be_loaded_says_so(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app(reference=""))
    with pytest.raises(NoModel, match="names no predict function"):
        Model(turbine.home).predict([[1.0, 2.0]])
    turbine.use(2.0, turbine.app("import nowhere", "power:predict"))
    with pytest.raises(NoModel, match="cannot be imported"):
        Model(turbine.home).predict([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (np.zeros((4, 2)), ["0", "1"]),
        (np.zeros(4), ["0"]),
        (np.zeros((4, 64)), [POOLED]),
        (np.zeros((4, 8, 8)), [POOLED]),
        (np.array(["a"]), []),
    ],
)
def test_inputs_become_columns(table: np.ndarray, names: list[str]) -> None:
    assert list(columns(table)) == names


@pytest.mark.parametrize(
    ("outputs", "truth", "expected"),
    [
        ([1.5, 2.0], [1.0, 2.0], [0.5, 0.0]),
        ([1, 2], [1, 3], [0.0, 1.0]),
        (["a", "b"], ["a", "a"], [0.0, 1.0]),
        ([1.0], None, None),
        ([1.0], [1.0, 2.0], None),
    ],
)
def test_residuals_are_differences_or_mistakes(
    outputs: list, truth: list | None, expected: list | None
) -> None:
    found = residuals(np.array(outputs), truth)
    assert (found.tolist() if found is not None else None) == expected


def test_the_digits_app_reads_digits(turbine: Turbine) -> None:
    """What data scientists ship, as it runs on a device."""
    app = load_app(APPS / "digits")
    shutil.copytree(
        APPS / "digits",
        turbine.home / "apps" / app.digest(),
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    sys.path.insert(0, str(APPS / "digits"))
    try:
        from digits.client_app import load
    finally:
        sys.path.remove(str(APPS / "digits"))
    x, y, _, _ = load(0, 1)
    weights = {
        "0": np.stack([x[y == n].mean(axis=0) for n in range(10)], axis=1).astype(np.float32) * 20,
        "1": np.zeros(10, np.float32),
    }
    turbine.sequence += 1
    blob = encode_records(Records(arrays={"arrays": weights}))
    manifest = Manifest(
        fleet="f",
        model_version="digits/1",
        digest=digest(blob),
        size=len(blob),
        app=app.digest(),
        metric="accuracy",
        goal="maximize",
        tolerance=0,
        sequence=1,
        forced=True,
    )
    turbine.objects.data["url"] = blob

    async def test(*_: Any) -> float:
        return 0.0

    asyncio.run(turbine.store.install(document(manifest), test))
    model = Model(turbine.home)
    said = model.predict(x[:200].tolist(), truth=y[:200].tolist())
    assert (said == y[:200]).mean() > 0.5
    model.close()
    found = turbine.serving()
    assert found.inputs[0].name == POOLED
    assert found.residuals is not None
    assert found.residuals.first.mean == pytest.approx(1 - (said == y[:200]).mean(), abs=1e-6)
