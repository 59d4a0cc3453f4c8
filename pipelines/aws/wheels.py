"""Wheels for platforms other than this machine's: Lambda's, a device's, a container's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edge.files import open_atomically
from pipelines.aws.hashes import hashed
from pipelines.errors import DeployError

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = "3.11"
"""Of devices and images; functions have their own (:mod:`pipelines.aws.runtime`)."""
_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
_MACHINES = {"ARM64": "aarch64", "X86_64": "x86_64"}


def platforms(architecture: str, tags: Sequence[str] = _TAGS) -> list[str]:
    """pip's options for an architecture; raises DeployError for an unknown one. ``tags``: of wheels
    that run there.
    """
    if architecture not in _MACHINES:
        raise DeployError(f"The architecture is {architecture!r}; it must be ARM64 or X86_64.")
    return [option for tag in tags for option in ("--platform", f"{tag}_{_MACHINES[architecture]}")]


def download(
    folder: Path,
    architecture: str,
    requirements: list[str],
    *,
    constraints: list[str] | None = None,
) -> None:
    """Download wheels of these pins only, whose hashes the lock has, or with ``constraints`` of
    all that the requirements need. Raises DeployError with pip's reason.
    """
    lists = Path(tempfile.mkdtemp())
    try:
        rules = _rules(lists, requirements, constraints)
        done = _pip_download(folder, architecture, rules)
    finally:
        shutil.rmtree(lists)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DeployError(
            f"Wheels for {architecture} cannot be had: {(lines or [done.stderr])[-1]}"
        )


def _rules(lists: Path, requirements: list[str], constraints: list[str] | None) -> list[str]:
    if constraints is None:
        return hashed_options(lists / "requirements.txt", requirements)
    (lists / "constraints.txt").write_text("\n".join(constraints) + "\n")
    return ["--constraint", str(lists / "constraints.txt"), *requirements]


def hashed_options(file: Path, pins: list[str]) -> list[str]:
    """pip's options for these pins and only files whose hashes the lock has, listed in ``file``."""
    file.write_text("\n".join(hashed(pins)) + "\n")
    return ["--no-deps", "--require-hashes", "--requirement", str(file)]


def _pip_download(
    folder: Path, architecture: str, rules: list[str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            *platforms(architecture),
            "--python-version",
            PYTHON,
            "--dest",
            str(folder),
            *rules,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def archive(folder: Path, target: Path) -> None:
    """Write a folder's files to a zip, atomically. Wheels are compressed already."""
    with open_atomically(target, durable=False) as stream, zipfile.ZipFile(stream, "w") as out:
        for file in sorted(folder.iterdir()):
            out.write(file, file.name)


def wheel(folder: Path) -> Path:
    """Build our packages as a wheel. Raises DeployError outside a checkout."""
    if not (ROOT / "setup.cfg").is_file():
        raise DeployError(
            f"{ROOT} is not a checkout, so no wheel can be built from it: run this in one."
        )
    with tempfile.TemporaryDirectory() as name:
        # Building leaves folders behind, in which two builds at once would collide: build a copy.
        source = Path(name) / "source"
        for package in ("edge", "fl_runtime", "registry", "pipelines"):
            shutil.copytree(
                ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / file, source / file)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--no-build-isolation",
                "--wheel-dir",
                name,
                str(source),
            ],
            check=True,
            capture_output=True,
        )
        built = next(Path(name).glob("mledgeops-*.whl"))
        return Path(shutil.copy(built, folder / built.name))
