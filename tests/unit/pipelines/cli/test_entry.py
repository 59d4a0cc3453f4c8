"""Ctrl-C ends a command with exit code 130 and one word, even while modules are imported."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from support.paths import ROOT

from pipelines.cli import entry
from pipelines.cli import main as command_line

INTERRUPTING = """
import builtins, os, runpy, signal, sys
original = builtins.__import__
def importing(name, *rest, **more):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return original(name, *rest, **more)
builtins.__import__ = importing
sys.argv = ["mledgeops", "runs", "--help"]
runpy.run_module("pipelines.cli", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["pipelines.cli.main", "msgspec", "argparse"])
def test_ctrl_c_during_imports_leaves_no_traceback(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING.format(module=module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_the_commands_exit_code_is_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        monkeypatch.setattr(command_line, "main", lambda: 7)
        assert entry.main() == 7
    finally:
        signal.signal(signal.SIGINT, before)
