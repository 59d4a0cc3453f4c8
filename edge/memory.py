"""How much memory a training process could use, as Linux knows it."""

from __future__ import annotations

from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_memory(memory: Path = _MEMORY, group: Path = _GROUP, groups: Path = _GROUPS) -> int:
    """Return the MiB that are available without swapping; 0 where Linux does not say.

    A service manager or a container may allow this process and its workers less than the machine
    has (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files).

    Args:
        memory: ``/proc/meminfo``.
        group: ``/proc/self/cgroup``.
        groups: Where the control groups are mounted.

    """
    found = [_available(memory), _left_of_group(group, groups)]
    return min((amount for amount in found if amount), default=0)


def _available(file: Path) -> int:
    for line in _text(file).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _left_of_group(file: Path, groups: Path) -> int:
    """MiB that the innermost limited group leaves; 0 without a limit, and with version 1."""
    own = [line[3:] for line in _text(file).splitlines() if line.startswith("0::")]
    place = groups / own[0].lstrip("/") if own else groups
    while place != groups.parent:
        limit, used = _text(place / "memory.max"), _text(place / "memory.current")
        if limit.isdigit() and used.isdigit():
            # Cached files count as used, and give way.
            return max(1, (int(limit) - int(used) + _cached(place / "memory.stat")) >> 20)
        place = place.parent
    return 0


def _cached(file: Path) -> int:
    for line in _text(file).splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
