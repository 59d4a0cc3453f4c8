"""Starting and ending the local cloud's processes. Only processes started here are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 10.0


def free_port() -> int:
    """A loopback TCP port that is free now (another process may still take it)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_in_use(port: int) -> bool:
    """Whether a process listens on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_command(module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that runs a Python module as a process that dies with this one."""
    return [sys.executable, "-m", "pipelines.local.child", str(os.getpid()), module, *arguments]


def spawn(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    leash: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a Python module that dies with this process.

    Args:
        module: Run as ``python -m``.
        arguments: Its command-line arguments.
        environment: Added to this process's own.
        log: File that its output is appended to.
        leash: Give it a pipe as standard input, whose end it takes as the order to stop.

    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            child_command(module, arguments),
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE if leash else subprocess.DEVNULL,
            # A session of its own keeps the terminal's Ctrl-C from it: we end it in order.
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> int:
    """Ask a process to stop, kill it if it takes longer, and return its exit code."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        # The whole session: a worker that ignores SIGTERM must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
