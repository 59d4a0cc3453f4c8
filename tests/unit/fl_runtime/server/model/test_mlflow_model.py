"""The model that MLflow loads from code: the app's predictions, or the means of its arrays."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import importlib_metadata
import numpy as np
import pandas as pd
import pytest
from mlflow.utils import requirements_utils

from edge.protocol.records import Records, encode_records
from edge.training.app_bundle import AppError, FlowerApp
from fl_runtime.server.model.mlflow_logging import modules_known
from fl_runtime.server.model.mlflow_model import FederatedModel
from fl_runtime.server.model.requirements import REQUIRED, model_requirements

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


def test_logging_a_model_does_not_list_the_files_of_all_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took two CPU seconds of each run. MLflow still compares the versions with those here."""
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(importlib_metadata, "packages_distributions", lambda: 1 / 0)
    with modules_known(REQUIRED):
        mismatch = requirements_utils._check_requirement_satisfied
        assert [mismatch(f"{name}=={version(name)}") for name in REQUIRED] == [None] * 4
        wrong = mismatch("numpy==1.0")
        assert wrong is not None
        assert wrong.package_name == "numpy"
    assert requirements_utils._MODULES_TO_PACKAGES is None


def app_with(folder: Path, **fields: object) -> FlowerApp:
    return FlowerApp(
        folder=folder, name="a", version="1", client_app="a:app", server_app="", **fields
    )


def test_a_models_requirements_are_those_of_its_app(tmp_path: Path) -> None:
    app = app_with(
        tmp_path,
        dependencies=[
            "flwr>=1.41",
            "scikit-learn",
            "numpy>=1.20",
            "torch ; python_version < '3'",
            "nobody-has-this[cpu]>=2",
        ],
    )
    found = model_requirements(app)
    assert f"flwr=={version('flwr')}" in found
    assert f"scikit-learn=={version('scikit-learn')}" in found
    assert found.count(f"numpy=={version('numpy')}") == 1
    assert not any(text.startswith(("torch", "msgspec")) for text in found)
    assert "nobody-has-this[cpu]>=2" in found
    assert {f"{name}=={version(name)}" for name in REQUIRED} <= set(found)


def test_an_app_may_say_what_predicting_takes(tmp_path: Path) -> None:
    app = app_with(tmp_path, dependencies=["openoa==3.2"], settings={"requirements": ["torch"]})
    found = model_requirements(app)
    assert f"torch=={version('torch').partition('+')[0]}" in found
    assert not any(text.startswith("openoa") for text in found)
    for wrong, message in (("torch", "must be a list"), (["a b"], "'a b' in .* no requirement")):
        with pytest.raises(AppError, match=message):
            model_requirements(app_with(tmp_path, settings={"requirements": wrong}))
