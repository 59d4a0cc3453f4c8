"""The model's code as MLflow stores it beside the weights: it imports nothing of ours, no pickle.

With a predict function of the app's it maps a table to predictions; without one it maps array names
to the arrays' means.
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
        """Read the weights, and import the app's predict function if it has one."""
        with safe_open(context.artifacts["weights"], framework="numpy") as file:
            # Tensors are numbered; the header holds their names in the app's order.
            names = json.loads(file.metadata()["records"])["arrays"]["arrays"]
            self.arrays = {name: file.get_tensor(str(index)) for index, name in enumerate(names)}
        reference = json.loads(Path(context.artifacts["hooks"]).read_text())["predict"]
        module, _, attribute = reference.partition(":")
        self.app_predict = (
            getattr(importlib.import_module(module), attribute) if reference else None
        )

    # A DataFrame is the one type hint for which MLflow neither warns nor checks inputs.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Predictions by the app's function, or the mean of each named array."""
        if self.app_predict is not None:
            return self.app_predict(self.arrays, model_input)
        return [float(np.mean(self.arrays[name])) for name in model_input["array"]]


set_model(FederatedModel())
