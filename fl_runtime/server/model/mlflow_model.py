"""A model from code, as MLflow stores it beside the weights: loads without pickle and without us.

With a predict function of the app's: table in, predictions out. Without: array names in, their
means out.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from safetensors import safe_open


class FederatedModel(PythonModel):  # type: ignore[misc]  # mlflow is untyped here
    """The aggregated weights of one federated run."""

    def load_context(self, context: Any) -> None:
        """Read the weights in the order the app named them."""
        with safe_open(context.artifacts["weights"], framework="numpy") as file:
            names = json.loads(file.metadata()["records"])["arrays"]["arrays"]
            self.arrays = {name: file.get_tensor(str(index)) for index, name in enumerate(names)}
        reference = json.loads(Path(context.artifacts["hooks"]).read_text())["predict"]
        module, _, attribute = reference.partition(":")
        self.app_predict = (
            getattr(importlib.import_module(module), attribute) if reference else None
        )

    # A DataFrame is the one type hint that MLflow neither warns of nor checks inputs against.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Predictions by the app's function, or the mean of each named array."""
        if self.app_predict is not None:
            return self.app_predict(self.arrays, model_input)
        return [float(np.mean(self.arrays[name])) for name in model_input["array"]]


set_model(FederatedModel())
