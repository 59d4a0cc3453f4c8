"""Processes of the local cloud: they die with their parent, call their hook, and can be ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.paths import ROOT

from pipelines.local import child
from pipelines.local.child import HOOK, call_hook
from pipelines.local.processes import child_command, end, free_port, identity, port_in_use, spawn

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"
MASTER = (
    "import subprocess, sys, time\n"
    "print(subprocess.Popen([sys.executable, '-m', 'stubborn']).pid, flush=True)\ntime.sleep(60)\n"
)
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Python modules that processes can run."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "master.py").write_text(MASTER)
    (tmp_path / "reader.py").write_text("import sys\nsys.stdin.read()\nprint('leash ended')\n")
    (tmp_path / "hooks.py").write_text("def say():\n    print('hooked', flush=True)\n")
    (tmp_path / "shown.py").write_text("import sys\nprint(sys.argv[1:], __name__)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return tmp_path


def until_logged(log: Path, text: str) -> str:
    for _ in range(600):
        if log.is_file() and text in log.read_text():
            return log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text() if log.is_file() else "no log")


def test_a_module_runs_with_its_arguments_after_the_hook(modules: Path) -> None:
    log = modules / "log"
    process = spawn("shown", ["a", "b"], {HOOK: "hooks:say"}, log)
    assert process.wait(30) == 0
    assert log.read_text() == "hooked\n['a', 'b'] __main__\n"


def test_ending_asks_first_and_then_kills(modules: Path) -> None:
    polite = spawn("sleeper", [], {}, modules / "polite")
    stubborn = spawn("stubborn", [], {}, modules / "stubborn")
    until_logged(modules / "polite", "up")
    until_logged(modules / "stubborn", "up")
    assert end(polite) == -signal.SIGTERM
    assert end(stubborn, 0.2) == -signal.SIGKILL


def test_what_a_process_leaves_in_its_group_ends_with_it(modules: Path) -> None:
    master = spawn("master", [], {}, modules / "log")
    worker = psutil.Process(int(until_logged(modules / "log", "up").split()[0]))
    assert end(master) == -signal.SIGTERM
    worker.wait(10)
    assert not worker.is_running()


def test_an_orphan_that_does_not_end_is_killed_with_its_group(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(child, "ORPHAN_SECONDS", 0.0)
    monkeypatch.setattr(os, "killpg", lambda *given: killed.append(given))
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    monkeypatch.setattr(os, "getpgrp", os.getpid)
    child._outlive(-1)
    assert killed == [(0, signal.SIGKILL), (os.getpid(), signal.SIGKILL)]


def test_a_process_is_told_from_another_that_gets_its_id() -> None:
    with subprocess.Popen(["sleep", "60"]) as first, subprocess.Popen(["sleep", "60"]) as second:
        assert identity(first.pid) == identity(first.pid) != ""
        assert identity(os.getpid()) not in ("", identity(second.pid))
        first.kill()
        second.kill()
        first.wait()
        assert identity(first.pid) == ""


def test_the_end_of_a_leash_is_an_order_to_stop(modules: Path) -> None:
    process = spawn("reader", [], {}, modules / "log", leash=True)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert "leash ended" in (modules / "log").read_text()


def test_a_child_dies_with_its_parent(modules: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.local.processes import spawn; "
        f"print(spawn('sleeper', [], {{}}, Path({str(modules / 'log')!r})).pid, flush=True); "
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    until_logged(modules / "log", "up")
    parent.kill()
    parent.communicate()
    child.wait(10)
    assert not child.is_running()


def test_a_port_is_free_or_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert port_in_use(server.getsockname()[1])
    port = free_port()
    assert not port_in_use(port)


def test_a_childs_command_names_its_parent() -> None:
    assert child_command("m", ["x"])[2:] == ["pipelines.local.child", str(os.getpid()), "m", "x"]


def test_no_hook_is_no_call() -> None:
    call_hook("")
    with pytest.raises(ModuleNotFoundError):
        call_hook("no.such.module:function")
