"""The final model's files: weights for devices, an archive and statistics for SageMaker."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from fakes.apps import write_app
from fakes.runs import spec

from edge.protocol.records import decode_records, digest
from edge.training.app_bundle import AppError
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.model.artifact import final_model, model_metrics, model_tar
from fl_runtime.server.model.hooks import load_hook
from fl_runtime.server.model.mlflow_logging import MODEL_CODE, example_of
from fl_runtime.server.model.objective import Objective

ARRAYS = {"w": np.array([1.0, 3.0], np.float32), "b": np.array(0.5)}
HOOKS = """
import numpy as np
inputs = [1.0, 2.0]
def predict(arrays, inputs):
    return [float(arrays["w"][0] * value) for value in inputs]
def broken(arrays, inputs):
    raise KeyError("no such column")
"""


def test_weights_are_named_by_their_digest_and_scored_by_the_goal() -> None:
    model = final_model(ARRAYS, "loss", "minimize", 0.25)
    assert model.digest == digest(model.weights)
    assert model.score == -0.25
    stored = decode_records(model.weights).arrays["arrays"]
    np.testing.assert_array_equal(stored["w"], ARRAYS["w"])


def test_the_archive_is_the_same_bytes_for_the_same_model(tmp_path) -> None:
    app = write_app(tmp_path / "plain")
    model = final_model(ARRAYS, "accuracy", "maximize", 0.9)
    data = model_tar(model, spec(), b"bundle", app)
    assert data == model_tar(model, spec(), b"bundle", app)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [
            "model.safetensors",
            "app.zip",
            "manifest.json",
            "code/inference.py",
            "code/requirements.txt",
        ]
        manifest = json.load(archive.extractfile("manifest.json"))
    assert manifest["weights_digest"] == model.digest
    assert manifest["run"] == "run-1"


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("accuracy", "multiclass_classification_metrics"),
        ("val_F1", "multiclass_classification_metrics"),
        ("rmse", "regression_metrics"),
    ],
)
def test_statistics_hold_the_finite_metrics(metric: str, kind: str) -> None:
    found = json.loads(model_metrics({metric: 0.5, "nan": float("nan"), "text": "x"}, metric))
    assert found == {kind: {metric: {"value": 0.5, "standard_deviation": "NaN"}}}


def test_the_signature_comes_from_the_apps_example_or_from_the_arrays(tmp_path) -> None:
    model = final_model(ARRAYS, "loss", "minimize", 0.25)
    inputs, outputs = example_of(write_app(tmp_path / "plain"), model)
    assert list(inputs["array"]) == ["w", "b"]
    assert outputs == [2.0, 0.5]
    settings = 'predict = "hooked.client_app:predict"\ninput-example = "hooked.client_app:inputs"'
    app = write_app(tmp_path / "hooked", client=HOOKS, settings=settings)
    assert example_of(app, model) == ([1.0, 2.0], [1.0, 2.0])


def test_a_predict_that_fails_on_the_apps_own_example_is_the_runs_reason(tmp_path) -> None:
    settings = 'predict = "failing.client_app:broken"\ninput-example = "failing.client_app:inputs"'
    app = write_app(tmp_path / "failing", client=HOOKS, settings=settings)
    with pytest.raises(RunFailed, match="predict raised KeyError on its input-example"):
        example_of(app, final_model(ARRAYS, "loss", "minimize", 0.25))


def test_a_hook_is_optional_but_one_that_is_named_must_exist(tmp_path) -> None:
    app = write_app(tmp_path / "misnamed", settings='predict = "misnamed.client_app:nothing"')
    assert load_hook(app, "initial-arrays") is None
    with pytest.raises(AppError, match=r"predict = 'misnamed.client_app:nothing' cannot be loaded"):
        load_hook(app, "predict")


def test_mlflow_stores_the_models_code_which_imports_nothing_of_ours() -> None:
    code = MODEL_CODE.read_text()
    for package in ("edge", "fl_runtime", "registry", "pipelines"):
        assert f"import {package}" not in code
        assert f"from {package}" not in code


@pytest.mark.parametrize(
    ("objective", "reported", "metric", "score"),
    [
        (Objective(), {"loss": 0.5, "accuracy": 0.9}, "accuracy", 0.9),
        (Objective("loss"), {"loss": 0.5, "accuracy": 0.9}, "loss", -0.5),
        (Objective("loss", "maximize"), {"loss": 0.5}, "loss", 0.5),
        (Objective(), {"name": "x", "rmse": 2.0}, "rmse", -2.0),
    ],
)
def test_an_objective_is_named_or_chosen_and_a_higher_score_is_better(
    objective: Objective, reported: dict, metric: str, score: float
) -> None:
    value = objective.value_of(reported)
    assert (value.metric, value.score) == (metric, score)


def test_a_missing_objective_fails_a_run_but_not_a_round() -> None:
    assert Objective("accuracy").value_if_reported({"loss": 1.0}) is None
    with pytest.raises(RunFailed, match="no metric 'accuracy'"):
        Objective("accuracy").value_of({"loss": 1.0})
