"""The final model's files: safetensors for devices, an archive and statistics for SageMaker."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge.protocol.messages import Goal
from edge.protocol.records import ArrayMap, Records, digest, encode_records
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.scoring import score_of
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.requirements import model_requirements, package_names

MODEL_FILE = "model.safetensors"
INFERENCE = Path(__file__).with_name("inference.py")
CONTAINER_HAS = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What AWS's PyTorch inference container holds, or serving does without."""
CLASSIFICATION_PARTS = ("acc", "f1", "auc", "precision", "recall")
"""Parts of the names of classification metrics."""


class FinalModel(msgspec.Struct, frozen=True, kw_only=True):
    """The final weights, and their value of the metric that the run is judged by."""

    weights: bytes
    """A safetensors file."""
    digest: str
    """SHA-256 of the weights' file."""
    metric: str
    goal: Goal
    value: float

    @property
    def score(self) -> float:
        """The value, negated for a metric to minimise: what the pipeline's condition compares."""
        return score_of(self.value, self.goal)


def final_model(arrays: ArrayMap, metric: str, goal: Goal, value: float) -> FinalModel:
    """Pack the final weights."""
    weights = encode_records(Records(arrays={"arrays": arrays}))
    return FinalModel(
        weights=weights, digest=digest(weights), metric=metric, goal=goal, value=value
    )


def model_tar(model: FinalModel, spec: RunSpec, app_bundle: bytes, app: FlowerApp) -> bytes:
    """``model.tar.gz``: weights, app, manifest, and the code by which SageMaker's PyTorch container
    serves them; the same bytes for the same model.

    https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-inference.html
    """
    manifest = {
        "run": spec.run,
        "app": spec.app_name,
        "app_digest": spec.app,
        "weights_digest": model.digest,
        "metric": model.metric,
        "predict": str(app.settings.get("predict", "")),
    }
    members = {
        MODEL_FILE: model.weights,
        "app.zip": app_bundle,
        "manifest.json": msgspec.json.encode(manifest),
        "code/inference.py": INFERENCE.read_bytes(),
        "code/requirements.txt": "".join(f"{line}\n" for line in _served_with(app)).encode(),
    }
    buffer = io.BytesIO()
    # Without a time in gzip's header, equal models are equal bytes. Weights hardly compress: a
    # higher level would only cost time.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _served_with(app: FlowerApp) -> list[str]:
    """What predicting needs and the container lacks. It has its own build of the others."""
    pins = model_requirements(app)
    names = package_names(pins)
    return [pin for pin, name in zip(pins, names, strict=True) if name not in CONTAINER_HAS]


def model_metrics(evaluate: Mapping[str, Any], metric: str) -> bytes:
    """SageMaker's ModelQuality statistics, as JSON.

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html
    """
    classifies = any(part in metric.lower() for part in CLASSIFICATION_PARTS)
    kind = "multiclass_classification_metrics" if classifies else "regression_metrics"
    values = {
        # JSON has no infinity, and SageMaker accepts no NaN as a value.
        key: {"value": float(value), "standard_deviation": "NaN"}
        for key, value in evaluate.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return msgspec.json.encode({kind: values})
