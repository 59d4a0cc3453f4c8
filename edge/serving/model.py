"""Predictions by the model that is installed on this device, in the caller's own process.

    model = Model("/var/lib/mledgeops")
    model.predict([[8.2, 210.0, 9.5, 0.4]])

A model is loaded only when a trusted key signed its manifest and its weights have the manifest's
digest. A newly installed model is used from the next call on.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import CodedError
from edge.identity.trust import Trust
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import SERVED_INPUTS
from edge.protocol.records import decode_records, digest
from edge.protocol.signed import Manifest, SignedManifest, parse_manifest
from edge.serving.model_store import Active, active_file, read_active
from edge.serving.statistics import Tally
from edge.training.app_bundle import AppError, load_app
from edge.training.app_modules import forget_modules, load_component

POOLED = "all inputs"
"""The name that stands for a model's inputs when they are too many: the mean of each row."""

Arrays = dict[str, np.ndarray]
Predict = Callable[[Arrays, Any], Any]
"""An app's predict function: weights by name and a table to outputs."""


class NoModel(CodedError):
    """The device has no model that it may predict with; ``code`` says why."""


class Model:
    """The model in use. Safe to call from several threads.

    Args:
        home: The device's folder.

    """

    def __init__(self, home: str | Path) -> None:
        self._home = Path(home)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (0, 0)
        self._predict: Predict | None = None
        self._arrays: Arrays = {}
        self._tally: Tally | None = None
        self.version = ""
        """NAME/NUMBER of the model that made the last prediction."""
        atexit.register(self.close)

    def predict(self, inputs: Any, truth: Sequence[Any] | None = None) -> Any:
        """Call the app's own ``predict``.

        Args:
            inputs: A table, an array, a list of rows or a list of objects.
            truth: The true values, one a row, once they are known: residuals are counted.

        Raises:
            NoModel: No model is in use, or it may not be used.
            Exception: Whatever the app raises.

        """
        with self._lock:
            self._reload()
            if self._predict is None or self._tally is None:
                raise NoModel("no-model", "This device uses no model yet.")
            table = as_table(inputs)
            try:
                outputs = self._predict(self._arrays, table)
            except Exception:
                self._tally.failed()
                raise
            self._tally.observe(columns(table), len(table), residuals(outputs, truth))
            return outputs

    def close(self) -> None:
        """Write the statistics to disk."""
        if self._tally is not None:
            self._tally.write(now=True)

    def _reload(self) -> None:
        """Load the model in use when it has changed since the last call."""
        try:
            found = active_file(self._home / "models").stat()
        except OSError:
            return
        # The file is replaced and never written in place: another inode is another model.
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        self.close()
        self._predict, self._tally, self.version = None, None, ""
        active = read_active(self._home / "models")
        if active.manifest is not None:
            self._load(active)
        self._stamp = stamp

    def _load(self, active: Active) -> None:
        if active.signed is None:
            raise NoModel(
                "unsigned",
                "The model in use has no signature: an older version of the agent installed it.",
            )
        manifest, self._arrays = _verified(self._home, active.signed)
        self._predict = _predict_function(self._home / "apps" / manifest.app, manifest)
        self._tally = Tally(self._home / "serving", manifest.sequence)
        self.version = manifest.model_version


def _verified(home: Path, signed: SignedManifest) -> tuple[Manifest, Arrays]:
    """Check signature and digest, and return what was signed: the manifest and its weights."""
    try:
        Trust.of(home / "trust.json").check("models", signed.manifest.encode(), signed.signature)
        manifest = parse_manifest(signed.manifest)
        weights = (home / "models" / manifest.digest).read_bytes()
        if digest(weights) != manifest.digest:
            raise NoModel(
                "bad-digest",
                f"The weights of {manifest.model_version} on this device are not those that were"
                " signed.",
            )
        group = next(iter(decode_records(weights).arrays.values()))
    except ProtocolError as error:
        raise NoModel(error.code, str(error)) from error
    except OSError as error:
        raise NoModel(
            "weights", f"The weights of the model in use cannot be read: {error.strerror}."
        ) from error
    # Copies: decoded arrays are read-only views, and an app may compute in place.
    return manifest, {key: np.array(value) for key, value in group.items()}


def _predict_function(app: Path, manifest: Manifest) -> Predict:
    """Import the function that the app names as ``predict`` under ``[tool.mledgeops]``."""
    try:
        reference = str(load_app(app).settings.get("predict", ""))
        if not reference:
            raise NoModel(
                "no-predict",
                f"The app of {manifest.model_version} names no predict function under"
                " [tool.mledgeops].",
            )
        forget_modules(app, reference)
        function: Predict = load_component(app, reference, object)
    except AppError as error:
        raise NoModel("app-load", str(error)) from error
    return function


def as_table(inputs: Any) -> Any:
    """Turn a list of objects into a table with named columns, and a list of rows into an array.

    Anything else is returned as it is. Raises ValueError for an empty list.
    """
    if not isinstance(inputs, list):
        return inputs
    if not inputs:
        raise ValueError("there are no rows")
    if isinstance(inputs[0], dict):
        import pandas as pd  # only apps with named inputs bring it

        return pd.DataFrame(inputs)
    return np.asarray(inputs, np.float32)


def columns(table: Any) -> dict[str, np.ndarray]:
    """Split inputs into columns of numbers, for the statistics.

    A table's columns keep their names, an array's are numbered. More than
    :data:`~edge.protocol.messages.SERVED_INPUTS` columns become one: the mean of each row.
    """
    if hasattr(table, "select_dtypes"):
        numbers = table.select_dtypes("number")
        if numbers.shape[1] <= SERVED_INPUTS:
            return {str(name): numbers[name].to_numpy() for name in numbers.columns}
        return {POOLED: numbers.to_numpy(float).mean(axis=1)}
    array = np.asarray(table)
    if not np.issubdtype(array.dtype, np.number) or not array.size:
        return {}
    if array.ndim == 1:
        return {"0": array}
    flat = array.reshape(len(array), -1)
    if flat.shape[1] <= SERVED_INPUTS:
        return {str(i): flat[:, i] for i in range(flat.shape[1])}
    return {POOLED: flat.mean(axis=1)}


def residuals(outputs: Any, truth: Sequence[Any] | None) -> np.ndarray | None:
    """Return prediction minus truth; for classes (integers, texts) 1.0 where they differ.

    None without truth, and when the shapes differ.
    """
    if truth is None:
        return None
    predicted, right = np.asarray(outputs), np.asarray(truth)
    if predicted.shape != right.shape:
        return None
    if np.issubdtype(predicted.dtype, np.floating) and np.issubdtype(right.dtype, np.number):
        difference: np.ndarray = predicted - right
        return difference
    different: np.ndarray = (predicted != right).astype(float)
    return different
