"""``python -m pipelines.local.child PARENT MODULE ARGS``: run a module that dies with its parent.

Linux signals a process when its parent dies (prctl PR_SET_PDEATHSIG), so a crash of the local
cloud leaves no process behind. A child that has not ended some seconds after its parent is killed,
with all processes of its group: the emulator would wait for its Lambda workers, half an hour.
https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
"""

from __future__ import annotations

import ctypes
import importlib
import os
import runpy
import signal
import sys
import threading
import time

HOOK = "MLEDGEOPS_CHILD_HOOK"
"""``module:function`` that every child calls before its module runs."""
ORPHAN_SECONDS = 10.0
"""How long a child may take to end in order once its parent is gone."""
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask for SIGTERM when the parent ends; exit now when it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died before prctl, and then no signal comes.
        if os.getppid() != parent:
            sys.exit(1)
    threading.Thread(target=_outlive, args=(parent,), name="parent", daemon=True).start()


def _outlive(parent: int) -> None:
    """Kill this process and its group some seconds after the parent's end."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(ORPHAN_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def call_hook(reference: str) -> None:
    """Call a function named as ``module:function``; an empty name does nothing."""
    if reference:
        module, _, function = reference.partition(":")
        getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    call_hook(os.environ.get(HOOK, ""))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
