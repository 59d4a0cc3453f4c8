"""A process from which workers are forked: it has imported what they need, and runs nothing.

``python -m edge.training.worker_template FD MODULE...`` imports Flower and the modules, and then
takes requests from the socket ``FD``. A forked worker is ready in milliseconds, and shares the
memory of what was imported. Nothing of an app is imported here: its own modules may seed random
numbers, start threads or read files, as each worker must do by itself.

Datagrams in JSON: ``{"fork": N}``, with a socket for frames and a pipe for standard error, and
``{"kill": N}``; answered by ``{"ready": true}`` once, ``{"pid": P, "fork": N}`` and, when a worker
has ended, ``{"ended": N, "code": C}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

MESSAGE_BYTES = 1024
_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)."""


_HARMLESS = {"jemalloc_bg_thd"}
"""Threads whose library takes its locks before a fork: jemalloc's, which pandas starts by way of
Arrow (https://github.com/jemalloc/jemalloc/blob/dev/src/background_thread.c).
"""


def is_fork_safe() -> bool:
    """Whether this process has one thread: locks that another holds would stay locked in a child.

    Also False where Linux's ``/proc`` is absent, such as on macOS, whose libraries do not survive
    a fork.
    """
    own = str(os.getpid())
    try:
        threads = [task for task in Path("/proc/self/task").iterdir() if task.name != own]
        return all((task / "comm").read_text().strip() in _HARMLESS for task in threads)
    except OSError:
        return False


def die_with_parent() -> None:
    """Have the kernel end this process with the one that started it. Linux only."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def preload(modules: Sequence[str]) -> None:
    """Import Flower's side of a worker, and whatever else can be imported."""
    importlib.import_module("edge.training.flower_compat")
    for name in modules:
        with contextlib.suppress(Exception):  # a worker's own import says what is wrong
            importlib.import_module(name)
    gc.collect()
    # The collector would write to every object's page, and end the sharing.
    gc.freeze()


class Template:
    """Forks workers on request.

    Args:
        control: The socket on which requests come.

    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}
        """Workers by process id."""

    def serve(self) -> None:
        """Answer requests until the other end of the socket is closed."""
        awake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up happens
        # Not select(), which takes no descriptor above 1,023: 1,000 devices have more.
        waiting = select.poll()
        for source in (self._control.fileno(), awake):
            waiting.register(source, select.POLLIN)
        while True:
            ready = {source for source, _ in waiting.poll()}
            if awake in ready:
                os.read(awake, MESSAGE_BYTES)
                self._reap()
            if self._control.fileno() in ready and not self._request((awake, wake)):
                return

    def _request(self, own: tuple[int, int]) -> bool:
        """Handle one request; False when there will be no more."""
        message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 2)
        if not message:
            return False
        request = json.loads(message)
        if "fork" in request:
            frames, errors = descriptors
            pid = os.fork()
            if pid == 0:
                self._become_worker(frames, errors, own)
            os.close(frames)
            os.close(errors)
            self._numbers[pid] = request["fork"]
            self._send({"pid": pid, "fork": request["fork"]})
        else:
            for pid, number in self._numbers.items():
                if number == request["kill"]:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so it is still this process
        return True

    def _reap(self) -> None:
        """Report the workers that have ended."""
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                self._send({"ended": number, "code": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: the next read says so
            self._control.send(json.dumps(message).encode())

    def _become_worker(self, frames: int, errors: int, own: tuple[int, int]) -> None:
        """Run jobs in a forked process, and never return."""
        code = 1
        try:
            die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            for descriptor in own:
                os.close(descriptor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (errors, 1), (errors, 2)):
                os.dup2(source, target)
            os.close(nothing)
            os.close(errors)
            sys.stdout = sys.stderr
            _work(frames)
            code = 0
        except BaseException:  # noqa: BLE001  # the interpreter's own exit would run the template's handlers
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)


def _work(frames: int) -> None:
    import random

    import numpy as np

    from edge.training.worker import serve

    # A fork copies the state of random numbers, so all devices would draw the same ones.
    random.seed()
    np.random.seed()  # the global generator that apps use
    with (
        socket.socket(fileno=frames) as connection,
        connection.makefile("rb") as jobs,
        connection.makefile("wb") as results,
    ):
        serve(jobs, results)


def main(arguments: Sequence[str]) -> int:
    """Serve until the agent closes its end. Exit code 3: forking is not safe."""
    # Importing takes seconds, in which nobody would see that the agent has ended; and Ctrl-C is the
    # agent's to answer.
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(arguments[0])) as control:
        preload(arguments[1:])
        if not is_fork_safe():
            return 3
        control.send(json.dumps({"ready": True}).encode())
        Template(control).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
