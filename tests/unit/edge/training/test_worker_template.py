"""The process from which workers are forked, in an agent process with very many devices."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import socket
from collections.abc import Iterator

import pytest

from edge.training.worker_template import Template


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Leave this process's handling of children as it was."""
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, handler)


def test_a_template_serves_agents_with_more_than_1023_descriptors() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        high = socket.socket(fileno=fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 1100))
    except OSError as error:
        pytest.skip(f"the system allows no such descriptor: {error}")
    theirs.close()
    ours.close()  # the agent is gone, which ends the template in order
    with high, signals_kept():
        Template(high).serve()
