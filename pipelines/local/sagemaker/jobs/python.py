"""The Python of a job: the local cloud's own packages, and a place for what the job installs."""

from __future__ import annotations

import site
import sys
from pathlib import Path

_PIP = '#!/bin/sh\nexec "$(dirname "$0")/python" -m pip "$@"\n'


def make_environment(folder: Path) -> Path:
    """Make a virtual environment in an empty folder; returns the folder of its programs.

    It sees this process's packages. What a script installs there with pip stays there: pip takes
    what is here already for installed, and removes nothing that lies outside. ``venv`` itself would
    see the packages of the base installation only, and take a hundred times as long.
    """
    base = Path(getattr(sys, "_base_executable", sys.executable))
    config = f"home = {base.parent}\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(config)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("python", "python3"):
        (programs / name).symlink_to(base)
    for name in ("pip", "pip3"):
        (programs / name).write_text(_PIP)
        (programs / name).chmod(0o755)
    major, minor = sys.version_info[:2]
    packages = folder / "lib" / f"python{major}.{minor}" / "site-packages"
    packages.mkdir(parents=True)
    # ``addsitedir`` also follows the .pth files there, with which editable packages are found.
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "shared.pth").write_text("\n".join(lines) + "\n")
    return programs
