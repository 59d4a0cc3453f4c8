"""The registered package serves by itself: its code, from the archive, answers as MLflow does."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fakes.apps import write_app
from fakes.runs import spec

from fl_runtime.server.model import inference
from fl_runtime.server.model.artifact import final_model, model_tar
from fl_runtime.server.model.mlflow_model import FederatedModel

ARRAYS = {"w": np.array([[2.0], [3.0]], np.float32), "b": np.array(0.5, np.float64)}
CODE = """
import numpy as np
def predict(arrays, inputs):
    arrays["b"] += 0
    return np.asarray(inputs, np.float32) @ arrays["w"] + arrays["b"]
"""
TABLE = pd.DataFrame({"wind": [1.0, 2.0], "heat": [0.0, -1.0]})


def packed(folder: Path, name: str, *, predict: bool = True) -> Path:
    """A package, unpacked as the container does."""
    settings = f'predict = "{name}.client_app:predict"\nrequirements = ["idna", "torch"]'
    app = write_app(folder / name, client=CODE, settings=settings if predict else "")
    model = final_model(ARRAYS, "loss", "minimize", 0.25)
    with tarfile.open(fileobj=io.BytesIO(model_tar(model, spec(), app.bundle(), app))) as archive:
        archive.extractall(folder / "model", filter="data")
    return folder / "model"


def served(model: Path) -> ModuleType:
    """The package's own code, as the toolkit imports it."""
    loading = importlib.util.spec_from_file_location("served", model / "code" / "inference.py")
    assert loading is not None
    assert loading.loader is not None
    module = importlib.util.module_from_spec(loading)
    loading.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def test_the_package_answers_as_mlflows_model_does(tmp_path: Path) -> None:
    folder = packed(tmp_path, "hosted")
    code = served(folder)
    model = code.model_fn(str(folder))
    sent = json.dumps({"dataframe_split": TABLE.to_dict(orient="split")})
    answer, kind = code.output_fn(
        code.predict_fn(code.input_fn(sent, "application/json"), model), "application/json"
    )
    hooks = tmp_path / "hooks.json"
    hooks.write_text(json.dumps({"predict": "hosted.client_app:predict"}))
    pyfunc = FederatedModel()
    artifacts = {"weights": str(folder / "model.safetensors"), "hooks": str(hooks)}
    pyfunc.load_context(SimpleNamespace(artifacts=artifacts))
    assert kind == "application/json"
    assert json.loads(answer) == {"predictions": pyfunc.predict(None, TABLE).tolist()}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (TABLE.to_csv(index=False).encode(), "text/csv"),
        (json.dumps({"dataframe_records": TABLE.to_dict(orient="records")}), "application/json"),
        (json.dumps({"inputs": TABLE.to_numpy().tolist()}), "application/json; charset=utf-8"),
        (json.dumps({"instances": TABLE.to_numpy().tolist()}), "application/json"),
    ],
)
def test_tables_and_arrays_are_taken_in_several_forms(body: bytes | str, kind: str) -> None:
    np.testing.assert_array_equal(np.asarray(inference.input_fn(body, kind)), TABLE.to_numpy())


def test_predictions_go_out_as_csv_too() -> None:
    assert inference.output_fn(np.array([[1.5], [2.5]]), "text/csv") == ("1.5\n2.5\n", "text/csv")


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [("x", "image/png", "neither"), ("{}", "application/json", "needs dataframe_split")],
)
def test_what_cannot_be_read_is_told(body: str, kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        inference.input_fn(body, kind)


def test_a_package_without_predict_says_that_it_cannot_be_hosted(tmp_path: Path) -> None:
    folder = packed(tmp_path, "unhosted", predict=False)
    with pytest.raises(ValueError, match="no predict function, so it cannot be hosted"):
        served(folder).model_fn(str(folder))


def test_the_package_brings_what_the_container_lacks_and_imports_nothing_of_ours(
    tmp_path: Path,
) -> None:
    folder = packed(tmp_path, "bringing")
    (line,) = (folder / "code" / "requirements.txt").read_text().splitlines()
    assert line.startswith("idna==")
    code = (folder / "code" / "inference.py").read_text()
    for package in ("edge", "fl_runtime", "registry", "pipelines", "safetensors"):
        assert f"import {package}" not in code
        assert f"from {package}" not in code
