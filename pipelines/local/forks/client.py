"""Starts processes by the fork server, with the part of ``subprocess.Popen`` that is used here."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from edge.typed import from_json
from pipelines.local.forks.server import TITLE, ForkAnswer, ForkRequest
from pipelines.local.processes import spawn

MODULE = "pipelines.local.forks.server"
VARIABLE = "MLEDGEOPS_FORKS"
"""The fork server's socket, for the emulator; empty where there is none."""
ANSWER_SECONDS = 60.0
"""The server may still be importing."""
KILLED = -signal.SIGKILL
_PACKET = 1 << 12


def available() -> bool:
    """Whether processes are forked here."""
    return sys.platform == "linux"


def start_fork_server(environment: Mapping[str, str], log: Path) -> tuple[Any, str]:
    """Start a fork server; returns its process and its socket's name."""
    name = f"mledgeops-{os.getpid()}-{secrets.token_hex(8)}"
    return spawn(MODULE, [name, "-" * TITLE], environment, log), name


class ForkedProcess:
    """A process that the fork server has started.

    Raises:
        OSError: The server is not there.

    """

    def __init__(
        self, server: str, request: ForkRequest, *, piped: tuple[bool, bool, bool], text: bool
    ) -> None:
        """``piped``: whether standard input, output and error are pipes to us.

        Otherwise input and output are empty, and errors go where the output goes.
        """
        self.returncode: int | None = None
        self._lock = threading.Lock()
        ends = [_Ends.make(number, pipe=pipe, text=text) for number, pipe in enumerate(piped)]
        theirs = [end.theirs for end in ends]
        if not piped[2]:
            theirs[2] = theirs[1]
        try:
            self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._connection.settimeout(ANSWER_SECONDS)
            self._connection.connect(f"\0{server}")
            socket.send_fds(self._connection, [msgspec.json.encode(request)], theirs)
            self.pid = self._receive().pid
        finally:
            for end in ends:
                os.close(end.theirs)
        if not self.pid:
            raise ConnectionResetError("The fork server has ended.")
        self.stdin, self.stdout, self.stderr = (end.ours for end in ends)

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._await_code(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            code = self._await_code(max(0.0, min(left, 1.0)))
            if code is not None:
                return code
            if deadline is not None and left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process. The server kills what it leaves in its group."""
        self.send_signal(signal.SIGKILL)

    def end(self, seconds: float) -> int:
        """Ask the process to stop, kill it if it takes longer, and return its exit code."""
        self.terminate()
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def _await_code(self, seconds: float) -> int | None:
        with self._lock:
            if self.returncode is None:
                # Not select(), which takes no file descriptor above 1,023.
                ready = select.poll()
                ready.register(self._connection, select.POLLIN)
                if not ready.poll(seconds * 1000):
                    return None
                self.returncode = self._receive().code
                self._connection.close()
            return self.returncode

    def _receive(self) -> ForkAnswer:
        """The server's next packet. A server that is gone took its children along."""
        try:
            packet = self._connection.recv(_PACKET)
        except TimeoutError as error:
            raise OSError("The fork server does not answer.") from error
        except OSError:
            packet = b""
        if packet:
            return from_json(packet, type=ForkAnswer)
        return ForkAnswer(pid=0, code=KILLED)


class _Ends(msgspec.Struct, frozen=True):
    """The two ends of a child's standard stream."""

    theirs: int
    ours: IO[Any] | None

    @classmethod
    def make(cls, number: int, *, pipe: bool, text: bool) -> _Ends:
        """Of stream 0, 1 or 2."""
        if not pipe:
            return cls(os.open(os.devnull, os.O_RDWR), None)
        reading, writing = os.pipe()
        theirs, ours = (reading, writing) if number == 0 else (writing, reading)
        mode, buffering = "w" if number == 0 else "r", 1 if text else -1
        return cls(theirs, os.fdopen(ours, mode if text else f"{mode}b", buffering))
