"""Predictions by the model that this device uses, in the caller's own process.

    model = Model("/var/lib/mledgeops")
    model.predict([[8.2, 210.0, 9.5, 0.4]])

Only a model whose manifest is signed by a trusted key, and whose weights are those of the manifest,
is ever loaded. A model
that was taken into use meanwhile is taken up at the next call. ``python -m edge.serving.model
HOME`` serves the agent's socket.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge.identity.trust import Trust
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import SERVED_INPUTS
from edge.protocol.records import decode_records, digest
from edge.protocol.signed import parse_manifest
from edge.serving.model_store import Active, read_active
from edge.serving.statistics import Tally
from edge.training.app_bundle import AppError, load_app
from edge.training.app_modules import load_component, make_room
from edge.training.worker import frames_out, read_frame, write_frame

POOLED = "all inputs"
"""Name under which the inputs of a model with very many of them are counted: each row's mean."""

Predict = Callable[[dict[str, np.ndarray], Any], Any]


class NoModel(Exception):
    """There is nothing to predict with; ``code`` is short, the message one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Model:
    """The model in use. ``home`` is the device's folder. Safe to call from several threads."""

    def __init__(self, home: str | Path) -> None:
        self._home = Path(home)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (0, 0)
        self._predict: Predict | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._tally: Tally | None = None
        self.version = ""
        """NAME/NUMBER of the model that made the last prediction."""
        atexit.register(self.close)

    def predict(self, inputs: Any, truth: Sequence[Any] | None = None) -> Any:
        """What the app's own ``predict`` returns for the inputs: a table, an array, a list of rows
        or a list of objects.

        ``truth``: what was right, one value a row, as soon as it is known: the residuals are
        counted. Raises NoModel when no model
        is in use, and whatever the app raises.
        """
        with self._lock:
            self._follow()
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
        """Write the statistics down."""
        if self._tally is not None:
            self._tally.write(now=True)

    def _follow(self) -> None:
        """Load what is in use now, if it is another than before."""
        try:
            found = (self._home / "models" / "active.json").stat()
        except OSError:
            return
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
                "The model in use has no signature: it was taken into use by an older version of the agent.",
            )
        try:
            Trust.of(self._home / "trust.json").check(
                "models", active.signed.manifest.encode(), active.signed.signature
            )
            manifest = parse_manifest(active.signed.manifest)
            weights = (self._home / "models" / manifest.digest).read_bytes()
            if digest(weights) != manifest.digest:
                raise NoModel(
                    "bad-digest",
                    f"The weights of {manifest.model_version} on this device are not those that were signed.",
                )
            self._arrays = {
                key: np.array(value)
                for key, value in next(iter(decode_records(weights).arrays.values())).items()
            }
        except ProtocolError as error:
            raise NoModel(error.code, str(error)) from error
        except OSError as error:
            raise NoModel(
                "weights", f"The weights of the model in use cannot be read: {error.strerror}."
            ) from error
        app = self._home / "apps" / manifest.app
        try:
            reference = load_app(app).settings.get("predict", "")
            if not reference:
                raise NoModel(
                    "no-predict",
                    f"The app of {manifest.model_version} names no predict function under [tool.mledgeops].",
                )
            make_room(app, str(reference))
            self._predict = load_component(app, str(reference), object)
        except AppError as error:
            raise NoModel("app-load", str(error)) from error
        self._tally = Tally(self._home / "serving", manifest.sequence)
        self.version = manifest.model_version


def as_table(inputs: Any) -> Any:
    """A list of objects becomes a table with their names as columns, a list of rows an array;
    anything else stays. Raises ValueError.
    """
    if not isinstance(inputs, list):
        return inputs
    if not inputs:
        raise ValueError("there are no rows")
    if isinstance(inputs[0], dict):
        import pandas as pd

        return pd.DataFrame(inputs)
    return np.asarray(inputs, np.float32)


def columns(table: Any) -> dict[str, np.ndarray]:
    """The inputs as columns of numbers: a table's by name, an array's by number; of very wide ones
    each row's mean.
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
    return (
        {str(i): flat[:, i] for i in range(flat.shape[1])}
        if flat.shape[1] <= SERVED_INPUTS
        else {POOLED: flat.mean(axis=1)}
    )


def residuals(outputs: Any, truth: Sequence[Any] | None) -> np.ndarray | None:
    """Prediction minus truth; for classes (whole numbers, texts) 1 where they differ. None where
    the two do not match.
    """
    if truth is None:
        return None
    said, right = np.asarray(outputs), np.asarray(truth)
    if said.shape != right.shape:
        return None
    if np.issubdtype(said.dtype, np.floating) and np.issubdtype(right.dtype, np.number):
        difference: np.ndarray = said - right
        return difference
    different: np.ndarray = (said != right).astype(float)
    return different


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the agent's socket."""

    inputs: list[Any]
    truth: list[Any] | None = None


def answer(model: Model, line: bytes) -> bytes:
    """One request's answer: ``model_version`` and ``outputs``, or ``error`` with ``code`` and
    ``message``.
    """
    try:
        request = msgspec.json.decode(line, type=Request)
        outputs = model.predict(request.inputs, request.truth)
        plain = outputs.tolist() if hasattr(outputs, "tolist") else list(outputs)
        return msgspec.json.encode({"model_version": model.version, "outputs": plain})
    except NoModel as error:
        code, message = error.code, str(error)
    except (msgspec.DecodeError, RecursionError) as error:
        code, message = "malformed", f"The request is malformed: {error}"
    except Exception as error:  # noqa: BLE001  # the app's own code: every failure becomes an answer
        code, message = "predict", f"{type(error).__name__}: {error}"
    return refusal(code, message[:500])


def refusal(code: str, message: str) -> bytes:
    """What the socket answers where there is no prediction."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})


def main() -> int:
    """Serve frames of requests on standard input until it ends."""
    frames = frames_out()
    model = Model(sys.argv[1])
    while (line := read_frame(sys.stdin.buffer)) is not None:
        write_frame(frames, answer(model, line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
