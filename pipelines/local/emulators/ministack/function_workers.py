"""Patch of ministack's Lambda: workers are forked from a process with the libraries loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ministack.core import lambda_runtime

from pipelines.local.forks.client import ForkedProcess
from pipelines.local.forks.server import ForkRequest


def fork_workers(server: str) -> None:
    """Start the workers of Python functions by the fork server of this name."""
    lambda_runtime.subprocess = _Subprocess(server)


class _Subprocess:
    """The module ``subprocess``, but for Python's scripts."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **options: Any) -> Any:  # its name there
        """Fork a worker, or start a process of another kind, or where the server is gone."""
        if len(command) == 2 and command[0] == sys.executable:
            request = ForkRequest(
                file=command[1],
                environment=options["env"],
                folder=options["cwd"],
                bundled=True,
            )
            try:
                return ForkedProcess(self._server, request, piped=(True, True, True), text=True)
            except OSError:
                pass  # it has gone: the function starts as it would without
        return subprocess.Popen(command, **options)
