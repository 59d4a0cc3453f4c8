"""Checks an app before its run: it is imported in a process of its own while the cloud starts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from pipelines.errors import UsageError
from pipelines.run.plan import RunPlan


@contextlib.contextmanager
def checking(plan: RunPlan) -> Iterator[subprocess.Popen[str]]:
    """Check the plan's app while the block lasts; :func:`finish` waits for the result."""
    parameters = msgspec.json.encode(plan.options.strategy_params()).decode()
    arguments = [str(plan.app.folder), plan.options.strategy, parameters]
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_runtime.server.apps.check_app", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a check; returns what the app uses of Flower.

    Raises:
        UsageError: The app cannot be run; the message is the check's last line.

    """
    said, errors = process.communicate()
    if process.returncode == 0:
        return _description(said or "")
    lines = [line for line in (errors or "").splitlines() if line.strip()]
    code = process.returncode
    raise UsageError(lines[-1] if lines else f"The app's check ended with code {code}.")


def _description(said: str) -> dict[str, Any]:
    """The check's answer: the last line. There is none when the app's modules ended the process."""
    try:
        found: dict[str, Any] = msgspec.json.decode(said.strip().rpartition("\n")[2])
    except msgspec.DecodeError as error:
        raise UsageError(
            "The app ends the process that imports it, by sys.exit() or alike."
        ) from error
    return found
