"""The command line, in a process of its own or in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.main import main
from pipelines.local.home import Home
from support.paths import ROOT


def mledgeops(
    *arguments: str, home: Path, check: int | None = 0, seconds: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a home of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env={**os.environ, "MLEDGEOPS_HOME": str(home)},
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def asked(*arguments: str, home: Path) -> Any:
    """What a command says with ``--json``, asked in this process: for commands that only look, or
    whose own process is not what a test is about.
    """
    code, said, _ = _here(*arguments, "--json", home=home)
    assert code == 0, said
    return json.loads(said)


def complaint(*arguments: str, home: Path) -> str:
    """The sentence with which a command refuses bad usage, in this process."""
    code, said, complained = _here(*arguments, home=home)
    assert code == 2, said + complained
    return complained


def _here(*arguments: str, home: Path) -> tuple[int, str, str]:
    said, complained = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        patch.setenv("MLEDGEOPS_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", Home(home).mlflow_uri)
        code = main(arguments)
    return code, said.getvalue(), complained.getvalue()
