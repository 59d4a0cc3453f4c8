"""``python -m pipelines.local.child PARENT MODULE ARGS``: runs a module that dies with its parent.

Linux tells a process of its parent's death (prctl PR_SET_PDEATHSIG); elsewhere the parent's own
shutdown must do. So a crash of the local cloud leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask for SIGTERM when the parent ends; end at once when it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    if os.environ.get("MLEDGEOPS_CHAOS"):
        from pipelines.chaos.injected import install

        install()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
