"""The prediction subprocess: ``python -m edge.serving.predictor HOME``.

It answers frames of JSON requests on standard input with frames of JSON on standard output. The
agent's socket (:mod:`edge.serving.socket_server`) passes them on.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from edge.frames import read_frame, take_over_stdout, write_frame
from edge.protocol.text import printable
from edge.serving.model import Model, NoModel
from edge.typed import from_json

_MESSAGE_LIMIT = 500


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One request: rows (lists or objects), and their true values once they are known."""

    inputs: list[Any]
    truth: list[Any] | None = None


def answer(model: Model, line: bytes) -> bytes:
    """Answer one request: ``model_version`` and ``outputs``, or ``error``."""
    try:
        request = from_json(line, type=PredictRequest)
        outputs = model.predict(request.inputs, request.truth)
        # tolist() turns numpy's numbers into Python's, which JSON knows.
        plain = outputs.tolist() if hasattr(outputs, "tolist") else list(outputs)
        return msgspec.json.encode({"model_version": model.version, "outputs": plain})
    except NoModel as error:
        code, message = error.code, str(error)
    except (msgspec.DecodeError, RecursionError) as error:
        code, message = "malformed", f"The request is malformed: {error}"
    except Exception as error:  # noqa: BLE001  # the app's own code may raise anything
        code, message = "predict", f"{type(error).__name__}: {error}"
    return refusal(code, message[:_MESSAGE_LIMIT])


def refusal(code: str, message: str) -> bytes:
    """Build the answer that holds an error instead of outputs."""
    return msgspec.json.encode({"error": {"code": code, "message": printable(message)}})


def main() -> int:
    """Serve requests until standard input ends."""
    frames = take_over_stdout()
    model = Model(sys.argv[1])
    while (line := read_frame(sys.stdin.buffer)) is not None:
        write_frame(frames, answer(model, line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
