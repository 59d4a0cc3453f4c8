"""What SageMaker's PyTorch container runs to serve a registered package: ``code/inference.py``.

It imports nothing of ours, and only numpy, pandas and the app beside the standard library, which
the container holds: an endpoint without a way to the internet can load it. The four functions are
the toolkit's: https://sagemaker.readthedocs.io/en/stable/frameworks/pytorch/using_pytorch.html
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

JSON, CSV = "application/json", "text/csv"
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def model_fn(model_dir: str) -> tuple[Any, dict[str, np.ndarray]]:
    """The app's predict function and the weights. The app is unpacked beside its archive, or into
    the temporary folder where the model's is read-only.

    Raises:
        ValueError: The app has no predict function, so the package cannot be hosted.

    """
    folder = Path(model_dir)
    reference = json.loads((folder / "manifest.json").read_text())["predict"]
    if not reference:
        raise ValueError("This model's app has no predict function, so it cannot be hosted.")
    root = _unpacked(folder / "app.zip")
    for place in (root, root / "src"):
        if place.is_dir() and str(place) not in sys.path:
            sys.path.insert(0, str(place))
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute), _arrays(
        (folder / "model.safetensors").read_bytes()
    )


def input_fn(body: Any, content_type: str) -> Any:
    """A table from CSV or JSON (MLflow's ``dataframe_split``, ``dataframe_records``), or the array
    of ``inputs`` or ``instances``.
    """
    text = body if isinstance(body, str) else bytes(body).decode()
    kind = content_type.partition(";")[0].strip().lower()
    if kind == CSV:
        return pd.read_csv(io.StringIO(text))
    if kind != JSON:
        raise ValueError(f"Content type {content_type!r} is neither {JSON} nor {CSV}.")
    sent = json.loads(text)
    if "dataframe_split" in sent:
        split = sent["dataframe_split"]
        return pd.DataFrame(split["data"], columns=split.get("columns"))
    if "dataframe_records" in sent:
        return pd.DataFrame(sent["dataframe_records"])
    for name in ("inputs", "instances"):
        if name in sent:
            return np.asarray(sent[name])
    raise ValueError("JSON needs dataframe_split, dataframe_records, inputs or instances.")


def predict_fn(inputs: Any, model: tuple[Any, dict[str, np.ndarray]]) -> Any:
    """The app's predictions."""
    predict, arrays = model
    return predict(arrays, inputs)


def output_fn(predictions: Any, accept: str) -> tuple[str, str]:
    """JSON with ``predictions``, as MLflow's server answers, or CSV without a header."""
    values = np.asarray(predictions)
    if accept.partition(";")[0].strip().lower() == CSV:
        return pd.DataFrame(values).to_csv(index=False, header=False), CSV
    return json.dumps({"predictions": values.tolist()}), JSON


def _arrays(stored: bytes) -> dict[str, np.ndarray]:
    """A safetensors file's arrays under the app's names: tensors are numbered, and the header has
    the names in order. https://huggingface.co/docs/safetensors/index#format
    """
    end = 8 + int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8:end])
    names = json.loads(header["__metadata__"]["records"])["arrays"]["arrays"]
    found = {}
    for index, name in enumerate(names):
        entry = header[str(index)]
        first, last = entry["data_offsets"]
        data: np.ndarray = np.frombuffer(stored[end + first : end + last], _TYPES[entry["dtype"]])
        found[name] = data.reshape(entry["shape"]).copy()  # the app may write to it
    return found


def _unpacked(archive: Path) -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="app-"))
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)  # the app of the run that made this package
    return folder
