"""The clock that a device counts deadlines on."""

from __future__ import annotations

import time


def uptime() -> float:
    """Monotonic seconds, including suspend.

    ``CLOCK_BOOTTIME`` where the system has it (Linux): ``time.monotonic`` stands still while a
    device sleeps, and a deadline must not.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boottime) if boottime is not None else time.monotonic()
