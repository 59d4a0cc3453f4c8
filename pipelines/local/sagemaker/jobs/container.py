"""Runs a command that sees a folder as ``/opt/ml``, and ends with its exit code.

``python -m …container FOLDER CWD COMMAND…``: FOLDER holds ``ml``; an empty FOLDER: no mount.
The file is also run by its path with ``--enter``, in a process with one thread, which the kernel
asks of whoever makes a user namespace: https://man7.org/linux/man-pages/man2/unshare.2.html
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ML = "/opt/ml"
CANNOT_MOUNT = 125
"""Exit code when the kernel allows no private mounts."""
CANNOT_START = 127
"""Exit code when the command cannot be started, as shells have it."""
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000
_PARENT_DEATH_SIGNAL = 1
STOP_SECONDS = 8.0
"""Between SIGTERM and SIGKILL."""


def mount_privately(folder: Path) -> None:
    """Make ``FOLDER/ml`` this process's ``/opt/ml``. Nothing on the machine changes.

    Raises:
        OSError: The kernel does not allow it.

    """
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if system.unshare(_NEW_MOUNTS) != 0:
        _check(system.unshare(_NEW_MOUNTS | _NEW_USERS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(system, "none", "/", _RECURSIVE | _PRIVATE)
    if Path(ML).is_dir():
        _mount(system, str(folder / "ml"), ML, _BIND | _RECURSIVE)
        return
    # There is no /opt/ml to mount on, and creating it needs root: /opt is replaced by a folder with
    # all that is in it, and ml.
    whole = folder / "opt"
    whole.mkdir(exist_ok=True)
    for entry in Path("/opt").iterdir():
        mirror = whole / entry.name
        if entry.is_symlink():
            mirror.symlink_to(entry.readlink())
            continue
        mirror.mkdir(exist_ok=True) if entry.is_dir() else mirror.touch()
        _mount(system, str(entry), str(mirror), _BIND | _RECURSIVE)
    (whole / "ml").mkdir(exist_ok=True)
    _mount(system, str(folder / "ml"), str(whole / "ml"), _BIND | _RECURSIVE)
    _mount(system, str(whole), "/opt", _BIND | _RECURSIVE)


def _mount(system: ctypes.CDLL, source: str, target: str, flags: int) -> None:
    _check(system.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter(folder: str, cwd: str, command: list[str]) -> int:
    """Become the command. Returns an exit code when that cannot be."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if folder:
        try:
            mount_privately(Path(folder))
        except OSError as error:
            sys.stderr.write(f"This system allows no private mounts: {error}.\n")
            return CANNOT_MOUNT
    try:
        os.chdir(cwd)
        os.execvp(command[0], command)  # noqa: S606  # the user's own command
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error}.\n")
    return CANNOT_START


def main(arguments: list[str]) -> int:
    """Run the command in a process of its own, pass a SIGTERM on, and return its exit code."""
    process = subprocess.Popen([sys.executable, "-I", __file__, "--enter", *arguments])

    def stop(*_: object) -> None:
        process.terminate()
        kill = threading.Timer(STOP_SECONDS, process.kill)
        kill.daemon = True
        kill.start()

    signal.signal(signal.SIGTERM, stop)
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "--enter":
        sys.exit(enter(sys.argv[2], sys.argv[3], sys.argv[4:]))
    sys.exit(main(sys.argv[1:]))
