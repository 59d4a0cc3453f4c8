"""What a device can say of itself for the choice of devices: its power and its free memory (Linux)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

SUPPLIES = Path("/sys/class/power_supply")
MEMORY = Path("/proc/meminfo")
Power = Literal["", "mains", "battery"]


def power(supplies: Path = SUPPLIES) -> Power:
    """``mains`` when a mains supply is online, ``battery`` when there is only a battery, empty when
    the kernel knows of none.

    https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power
    """
    found: Power = ""
    for supply in sorted(supplies.glob("*")):
        kind = _text(supply / "type")
        if kind in ("Mains", "USB") and _text(supply / "online") == "1":
            return "mains"
        if kind == "Battery" and _text(supply / "scope") != "Device":
            found = "battery"
    return found


def free_memory(file: Path = MEMORY) -> int:
    """MiB that could be had without swapping; 0 where the kernel does not say."""
    for line in _text(file).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def uptime() -> float:
    """Seconds on a clock that nobody sets and that goes on while the device sleeps: deadlines are
    counted on it.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boottime) if boottime is not None else time.monotonic()


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
