"""Starting and ending the local cloud's processes. Only processes started here are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

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


def identity(pid: int) -> str:
    """What tells a process from all others that have or had its id: when it started. Empty when
    there is no such process, or only its exit code is left.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        # Not psutil's time of creation on Linux: it moves when the clock is set.
        # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (field 22, starttime)
        stat = Path(f"/proc/{pid}/stat")
        if stat.is_file():
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {stat.read_text().rpartition(')')[2].split()[19]}"
        return repr(process.create_time())
    except (psutil.Error, OSError, IndexError):
        return ""


def is_module(pid: int, module: str) -> str:
    """The identity of a process that runs a Python module (``python -m``); empty for another."""
    try:
        running = module in psutil.Process(pid).cmdline()
    except psutil.Error:
        return ""
    return identity(pid) if running else ""


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
    """Ask a process to stop, kill it if it takes longer, and return its exit code.

    What it leaves in its process group is killed too: a worker that outlives it would hold files.
    """
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if process.returncode is None:
        process.terminate()
        _await_exit(process.pid, seconds)
        # The process has not been waited for, so nobody else can have its id, nor its group's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return process.wait()


def _await_exit(pid: int, seconds: float) -> None:
    """Wait for a child's exit, and leave its exit code where it is."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return
            time.sleep(0.02)
