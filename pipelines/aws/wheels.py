"""Wheels for other platforms than this machine's: Lambda's, a device's, a container's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.aws.deploy import DeployError

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = "3.11"
_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
_MACHINES = {"ARM64": "aarch64", "X86_64": "x86_64"}


def platforms(architecture: str) -> list[str]:
    """pip's options for an architecture; raises DeployError for an unknown one."""
    if architecture not in _MACHINES:
        raise DeployError(f"The architecture is {architecture!r}; it must be ARM64 or X86_64.")
    return [option for tag in _TAGS for option in ("--platform", f"{tag}_{_MACHINES[architecture]}")]


def wheel(folder: Path) -> Path:
    """Our packages as a wheel, built from the checkout; raises DeployError where there is none."""
    if not (ROOT / "setup.cfg").is_file():
        raise DeployError(f"{ROOT} is not a checkout, so no wheel can be built from it: run this in one.")
    with tempfile.TemporaryDirectory() as name:
        # A copy: building leaves folders behind, and two builds at once would meet in them.
        source = Path(name) / "source"
        for package in ("edge", "fl_runtime", "registry", "pipelines"):
            shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / file, source / file)
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
             "--wheel-dir", name, str(source)],
            check=True, capture_output=True,
        )  # fmt: skip
        built = next(Path(name).glob("mledgeops-*.whl"))
        return Path(shutil.copy(built, folder / built.name))
