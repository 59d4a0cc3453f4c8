"""Logs the final model to MLflow as a pyfunc model, without pickle.

MLflow stores the code of :mod:`fl_runtime.server.model.mlflow_model` beside the weights
(https://mlflow.org/docs/latest/ml/model/models-from-code/).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge.protocol.records import decode_records
from edge.training.app_bundle import FlowerApp
from edge.training.app_modules import import_roots
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.model.artifact import MODEL_FILE, FinalModel
from fl_runtime.server.model.hooks import load_hook
from fl_runtime.server.model.requirements import model_requirements, package_names

MODEL_CODE = Path(__file__).with_name("mlflow_model.py")


def log_to_mlflow(run_id: str, app: FlowerApp, model: FinalModel) -> str:
    """Log the model with its signature; returns MLflow's model id (``m-...``).

    Raises:
        RunFailed: the app's predict function failed on its input example.
    """
    import mlflow
    from mlflow.models import infer_signature

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / MODEL_FILE
        weights.write_bytes(model.weights)
        hooks = Path(folder) / "hooks.json"
        hooks.write_bytes(msgspec.json.encode({"predict": app.settings.get("predict", "")}))
        inputs, outputs = example_of(app, model)
        requirements = model_requirements(app)
        # log_model has no run_id argument: it logs to the active run.
        with (
            mlflow.start_run(run_id=run_id),
            modules_known(package_names(requirements)),
        ):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(MODEL_CODE),
                artifacts={"weights": str(weights), "hooks": str(hooks)},
                code_paths=_code_paths(app),
                signature=infer_signature(inputs, outputs),
                # MLflow loads the stored model and predicts on the example, as its server would.
                input_example=inputs if has_example(app) else None,
                # MLflow's own guess would load the model once more, in a new process.
                pip_requirements=requirements,
                metadata={"weights_sha256": model.digest, "metric": model.metric},
            )
    return str(info.model_id)


def has_example(app: FlowerApp) -> bool:
    """Whether the app predicts, and says on what."""
    return bool(app.settings.get("predict")) and bool(app.settings.get("input-example"))


def example_of(app: FlowerApp, model: FinalModel) -> tuple[Any, Any]:
    """Inputs and outputs for the signature: the app's example, or array names and their means."""
    predict, example = load_hook(app, "predict"), load_hook(app, "input-example")
    stored = decode_records(model.weights).arrays["arrays"]
    if predict is None or example is None:
        import pandas as pd

        means = [float(np.mean(array)) for array in stored.values()]
        return pd.DataFrame({"array": list(stored)}), means
    arrays = {key: np.array(value) for key, value in stored.items()}  # the app may write to them
    try:
        inputs = example() if callable(example) else example
        return inputs, predict(arrays, inputs)
    except Exception as error:  # the app's own code
        raise RunFailed(
            "predict",
            f"The app's predict raised {type(error).__name__} on its input-example: {error}",
        ) from error


def _code_paths(app: FlowerApp) -> list[str]:
    """The app's packages and modules, each by itself: MLflow puts their folder on the path."""
    roots = [Path(root) for root in reversed(import_roots(app.folder))]  # src before its parent
    found = set()
    for file in (file for file in app.files() if file.suffix == ".py"):
        root = next(root for root in roots if file.is_relative_to(root))
        found.add(root / file.relative_to(root).parts[0])
    return sorted(str(path) for path in found)


@contextlib.contextmanager
def modules_known(packages: Iterable[str]) -> Iterator[None]:
    """Tell MLflow the modules of the packages that loading needs: they have the packages' names.

    Otherwise it lists the files of all installed packages, nearly two CPU seconds, only to compare
    the versions that were read from those packages a moment before.
    """
    from mlflow.utils import requirements_utils

    before = requirements_utils._MODULES_TO_PACKAGES
    if before is None:
        requirements_utils._MODULES_TO_PACKAGES = {name: [name] for name in packages}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = before
