"""The model that MLflow loads from code: the app's predictions, or the means of its arrays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from edge.protocol.records import Records, encode_records
from fl_runtime.server.model.mlflow_model import FederatedModel

ARRAYS = {"w": np.array([1.0, 3.0], np.float32), "b": np.array(0.5)}


def loaded(folder: Path, predict: str = "") -> FederatedModel:
    weights, hooks = folder / "model.safetensors", folder / "hooks.json"
    weights.write_bytes(encode_records(Records(arrays={"arrays": ARRAYS})))
    hooks.write_text(json.dumps({"predict": predict}))
    model = FederatedModel()
    artifacts = {"weights": str(weights), "hooks": str(hooks)}
    model.load_context(SimpleNamespace(artifacts=artifacts))
    return model


def test_without_a_predict_function_arrays_are_asked_by_name(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    assert list(model.arrays) == ["w", "b"]
    assert model.predict(None, pd.DataFrame({"array": ["b", "w"]})) == [0.5, 2.0]


def test_an_apps_predict_function_gets_the_arrays_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def predict(arrays, table):\n    return [float(arrays['b'] * x) for x in table['x']]\n"
    (tmp_path / "predicting_app.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = loaded(tmp_path, "predicting_app:predict")
    assert model.predict(None, pd.DataFrame({"x": [2.0, 4.0]})) == [1.0, 2.0]
    sys.modules.pop("predicting_app")
