"""The final model: for devices (safetensors), for SageMaker (model.tar.gz), for MLflow (a pyfunc
model).

No pickle: MLflow gets a model from code (https://mlflow.org/docs/latest/ml/model/models-from-code/)
that reads the safetensors file and, where the app names one, calls the app's own predict function.
"""

from __future__ import annotations

import io
import math
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge.protocol.messages import Goal
from edge.protocol.records import ArrayMap, Records, digest, encode_records
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.scoring import score_of
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.hooks import load_hook

MODEL_FILE = "model.safetensors"


class FinalModel(msgspec.Struct, frozen=True, kw_only=True):
    """The final weights and how good they are."""

    weights: bytes
    digest: str
    metric: str
    goal: Goal
    value: float

    @property
    def score(self) -> float:
        """The metric with its sign so that more is better: what the pipeline's condition compares."""
        return score_of(self.value, self.goal)


def final_model(arrays: ArrayMap, metric: str, goal: Goal, value: float) -> FinalModel:
    """Pack the final weights."""
    weights = encode_records(Records(arrays={"arrays": arrays}))
    return FinalModel(
        weights=weights, digest=digest(weights), metric=metric, goal=goal, value=value
    )


def model_tar(model: FinalModel, spec: RunSpec, app_bundle: bytes) -> bytes:
    """SageMaker's ``model.tar.gz``: weights, app and a manifest, the same bytes for the same model."""
    manifest = {
        "run": spec.run,
        "app": spec.app_name,
        "app_digest": spec.app,
        "weights_digest": model.digest,
        "metric": model.metric,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, data in (
            (MODEL_FILE, model.weights),
            ("app.zip", app_bundle),
            ("manifest.json", msgspec.json.encode(manifest)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def model_metrics(evaluate: Mapping[str, Any], metric: str) -> bytes:
    """SageMaker's ModelQuality statistics.

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html
    """
    classifies = any(part in metric.lower() for part in ("acc", "f1", "auc", "precision", "recall"))
    kind = "multiclass_classification_metrics" if classifies else "regression_metrics"
    values = {
        key: {"value": float(value), "standard_deviation": "NaN"}
        for key, value in evaluate.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return msgspec.json.encode({kind: values})


def log_to_mlflow(run_id: str, app: FlowerApp, model: FinalModel) -> str:
    """Log the model with its signature; returns MLflow's model id (``m-...``)."""
    import mlflow
    from mlflow.models import infer_signature

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / MODEL_FILE
        weights.write_bytes(model.weights)
        hooks = Path(folder) / "hooks.json"
        hooks.write_bytes(msgspec.json.encode({"predict": app.settings.get("predict", "")}))
        example, outputs = _example(app, model)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("mlflow_model.py")),
                artifacts={"weights": str(weights), "hooks": str(hooks)},
                code_paths=_modules(app),
                signature=infer_signature(example, outputs),
                pip_requirements=_requirements(),
                metadata={"weights_sha256": model.digest, "metric": model.metric},
            )
    return str(info.model_id)


def _example(app: FlowerApp, model: FinalModel) -> tuple[Any, Any]:
    """Inputs and outputs for the signature: the app's own, or the weights by name."""
    from edge.protocol.records import decode_records

    predict, example = load_hook(app, "predict"), load_hook(app, "input-example")
    arrays = {
        key: np.array(value)
        for key, value in decode_records(model.weights).arrays["arrays"].items()
    }
    if predict is None or example is None:
        import pandas as pd

        return pd.DataFrame({"array": list(arrays)}), [
            float(np.mean(array)) for array in arrays.values()
        ]
    try:
        inputs = example() if callable(example) else example
        return inputs, predict(arrays, inputs)
    except Exception as error:  # the app's own code
        raise RunFailed(
            "predict",
            f"The app's predict raised {type(error).__name__} on its input-example: {error}",
        ) from error


def _modules(app: FlowerApp) -> list[str]:
    """The app's packages and modules, each by itself: MLflow puts what holds them on the path."""
    tops = {
        app.folder / file.relative_to(app.folder).parts[0]
        for file in app.files()
        if file.suffix == ".py"
    }
    return sorted(str(top) for top in tops)


def _requirements() -> list[str]:
    """What loading needs; asking MLflow to guess would load the model once more in a new process."""
    from importlib.metadata import version

    return [
        f"{name}=={version(name)}"
        for name in ("mlflow", "numpy", "safetensors", "msgspec", "torch")
    ]
