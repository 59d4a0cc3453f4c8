"""``python -m pipelines.local.forks.server NAME``: forks a process for each request.

Listens on an abstract Unix socket, which has no file to clean up, and answers this user only. A
request is one packet with three file descriptors: the child's standard input, output and error.
The answer is the child's process id, then its exit code when it has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import random
import runpy
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge.typed import from_json
from pipelines.local.child import HOOK, call_hook, die_with

PRELOADED = (
    "boto3",
    "fl_runtime.server.main",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.pyfunc",
    "flwr.serverapp.strategy",
    "jinja2",
    "pandas",
)
"""What a run's processes import, in the order in which a start of the cloud needs it."""
OWN = ("edge", "fl_runtime", "registry", "pipelines")
PACKET = 1 << 18
"""Largest request in bytes: an environment takes some kilobytes."""
RECEIVE_SECONDS = 5.0
TITLE = 1 << 12
"""Bytes that the command line has for a child's own (:func:`set_command_line`)."""


class ForkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to run."""

    module: str = ""
    """A module, as ``python -m``; empty: ``file``."""
    file: str = ""
    """A script."""
    arguments: list[str] = []
    environment: dict[str, str]
    folder: str = ""
    """Working directory; empty: unchanged."""
    bundled: bool = False
    """The child brings its own copy of our packages (a Lambda function): ours are forgotten."""


class ForkAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """First with the process id, then with the exit code."""

    pid: int
    code: int | None = None


class ForkServer:
    """Accepts requests and reports the children's ends, in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._children: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()

    def serve(self) -> ForkRequest:
        """Serve for ever. Returns in the children only, with what they are to run."""
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for source in (self._listener, self._woken):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
                elif (request := self._accept()) is not None:
                    return request

    def _accept(self) -> ForkRequest | None:
        """Fork for one request; returns it in the child, None in this process."""
        connection, _ = self._listener.accept()
        files: list[int] = []
        try:
            connection.settimeout(RECEIVE_SECONDS)
            if _user(connection) != os.getuid():
                raise PermissionError
            packet, files, _, _ = socket.recv_fds(connection, PACKET, 3)
            request = from_json(packet, type=ForkRequest)
            pid = os.fork()
        except (OSError, msgspec.DecodeError):
            connection.close()
            _close(files)
            return None
        if pid == 0:
            self._enter_child(connection, files)
            return request
        _close(files)
        self._children[pid] = connection
        _answer(connection, ForkAnswer(pid=pid))
        return None

    def _enter_child(self, connection: socket.socket, files: Sequence[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for end in (connection, self._listener, self._woken, self._wakes, *self._children.values()):
            end.close()
        self._children.clear()
        os.setsid()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)

    def _reap(self) -> None:
        """Report the children that have ended."""
        with contextlib.suppress(ChildProcessError):
            while (
                ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            ) is not None:
                pid = ended.si_pid
                # Nobody else can have its id before it has been waited for, nor its group's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection = self._children.pop(pid, None)
                if connection is not None:
                    _answer(connection, ForkAnswer(pid=pid, code=code))
                    connection.close()


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def _user(connection: socket.socket) -> int:
    """Who is at the other end (https://man7.org/linux/man-pages/man7/unix.7.html, SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return int(user)


def _answer(connection: socket.socket, answer: ForkAnswer) -> None:
    with contextlib.suppress(OSError):  # whoever asked has gone
        connection.send(msgspec.json.encode(answer))


def set_command_line(arguments: Sequence[str]) -> None:
    """Show a child's own command line to ``ps``, and to whoever looks for a run's tasks.

    Linux reads it from the memory in which this process found its arguments, which the last of them
    has made long enough. Fields 48 and 49 of
    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html say where that is.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"".join(argument.encode() + b"\0" for argument in arguments)[: end - start]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def become(request: ForkRequest, parent: int) -> None:
    """Turn this forked process into what was asked for, and run it to its end."""
    die_with(parent)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.folder:
        os.chdir(request.folder)
    what = ["-m", request.module] if request.module else [request.file]
    set_command_line([sys.executable, *what, *request.arguments])
    sys.argv = [request.module or request.file, *request.arguments]
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if request.bundled:
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]
    call_hook(os.environ.get(HOOK, "") if request.module else "")
    if request.module:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(request.file).parent))
        runpy.run_path(request.file, run_name="__main__")


def preload() -> None:
    """Import what the children need. What cannot be imported here, they will report themselves."""
    for name in PRELOADED:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, the pages that children share


def main(arguments: Sequence[str]) -> None:
    """``NAME``: the socket's name; a second argument only makes the command line long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"\0{arguments[0]}")
    listener.listen(64)
    preload()
    parent = os.getpid()
    become(ForkServer(listener).serve(), parent)


if __name__ == "__main__":
    main(sys.argv[1:])
