"""Stand-ins: a user's own Python function in place of what a step would run on AWS.

A Training step of a built-in algorithm, a Transform or a Tuning step need SageMaker's images or
services. A stand-in is ``FILE.py:FUNCTION``. It is called in a process of its own, with the Python
that registered it: ``function(arguments)`` takes the step's arguments, with references replaced,
and may return the step's properties. Beside it lie the job's folders (``/opt/ml``).
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.files import write_atomically
from pipelines.local.home import LocalCloudError

RUNNER = Path(__file__).with_name("stand_in_runner.py")


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """One stand-in."""

    file: str
    function: str
    python: str
    """Interpreter that runs it."""

    def command(self, given: str, answer: str) -> list[str]:
        """The command that calls it. ``given``, ``answer``: JSON files of arguments and result."""
        return [self.python, str(RUNNER), self.file, self.function, given, answer]


class StandIns:
    """The stand-ins of a local cloud, by pipeline and step, in one file of its home."""

    def __init__(self, folder: Path) -> None:
        """``folder``: ``sagemaker`` in the home."""
        self._file = folder / "stand-ins.json"

    def set(self, pipeline: str, step: str, reference: str, python: str = sys.executable) -> None:
        """Register ``FILE.py:FUNCTION`` for a step, in place of an earlier one.

        Raises:
            LocalCloudError: It is not of that form, or there is no such file.

        """
        name, _, function = reference.rpartition(":")
        file = Path(name).resolve()
        if not function.isidentifier() or not file.is_file():
            raise LocalCloudError(
                f"The stand-in {reference!r} for the step {step} must be FILE.py:FUNCTION, and the "
                "file must exist."
            )
        found = self._read()
        found[f"{pipeline}/{step}"] = StandIn(file=str(file), function=function, python=python)
        self._write(found)

    def remove(self, pipeline: str, step: str) -> None:
        """Forget a step's stand-in, if there is one."""
        found = self._read()
        found.pop(f"{pipeline}/{step}", None)
        self._write(found)

    def find(self, pipeline: str, step: str) -> StandIn | None:
        """A step's stand-in, or None."""
        return self._read().get(f"{pipeline}/{step}")

    def _read(self) -> dict[str, StandIn]:
        with contextlib.suppress(FileNotFoundError):
            try:
                stored = json.loads(self._file.read_bytes())
                return {name: StandIn(**item) for name, item in stored.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise LocalCloudError(
                    f"{self._file} is not a list of stand-ins ({error}): mend or remove it."
                ) from error
        return {}

    def _write(self, found: dict[str, StandIn]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({name: asdict(item) for name, item in found.items()})
        write_atomically(self._file, content.encode(), durable=False)
