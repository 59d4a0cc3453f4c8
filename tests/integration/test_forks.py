"""Processes forked from one that has imported the libraries, as the local cloud starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.local.emulators.ministack.function_workers import fork_workers
from pipelines.local.forks import client
from pipelines.local.forks import server as fork_server
from pipelines.local.forks.client import ForkedProcess, start_fork_server
from pipelines.local.forks.server import ForkRequest
from pipelines.local.processes import end

pytestmark = pytest.mark.skipif(not client.available(), reason="Linux forks")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fork server that has loaded nothing: loading takes seconds."""
    code = (
        "import sys; from pipelines.local.forks import server as s;"
        "s.PRELOADED = ('json',); s.main(sys.argv[1:])"
    )
    name = f"mledgeops-test-{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", code, name, "-" * client.TITLE])
    yield name
    end(process)


def forked(server: str, folder: Path, script: str, **options: object) -> ForkedProcess:
    file = folder / "script.py"
    file.write_text(script)
    environment = {"HOME": str(folder), "COLOUR": "green"}
    request = ForkRequest(
        file=str(file), environment=environment, folder=str(folder), arguments=["RUN-1"], **options
    )
    deadline = time.monotonic() + 10
    while True:
        try:
            return ForkedProcess(server, request, piped=(True, True, True), text=True)
        except ConnectionRefusedError:  # it is starting
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_child_has_its_own_streams_environment_folder_and_arguments(
    server: str, tmp_path: Path
) -> None:
    script = (
        "import os, sys\n"
        "print(sys.stdin.readline().strip(), os.environ, os.getcwd(), sys.argv[1:], os.getpgrp())\n"
        "print('wrong', file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    child = forked(server, tmp_path, script)
    assert child.stdin and child.stdout and child.stderr
    child.stdin.write("hello\n")
    child.stdin.flush()
    assert child.wait(20) == 3
    said = child.stdout.read()
    assert said.startswith("hello ") and "'COLOUR': 'green'" in said and "'PATH'" not in said
    assert said.endswith(f"{tmp_path} ['RUN-1'] {child.pid}\n")
    assert child.stderr.read() == "wrong\n"


def test_a_child_shows_its_own_command_line(server: str, tmp_path: Path) -> None:
    child = forked(server, tmp_path, "import sys; print('up', flush=True); sys.stdin.read()")
    assert child.stdout and child.stdout.readline() == "up\n"
    shown = [part for part in psutil.Process(child.pid).cmdline() if part]
    assert shown == [sys.executable, str(tmp_path / "script.py"), "RUN-1"]
    assert child.poll() is None
    assert child.end(5.0) == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(
    server: str, tmp_path: Path
) -> None:
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "signal.pause()\n"
    )
    child = forked(server, tmp_path, script)
    assert child.stdout
    grandchild = psutil.Process(int(child.stdout.readline()))
    assert child.end(0.1) == -signal.SIGKILL
    grandchild.wait(5)


def test_children_draw_different_random_numbers(server: str, tmp_path: Path) -> None:
    script = "import random; print(random.random())"
    children = [forked(server, tmp_path, script) for _ in range(2)]
    drawn = {child.stdout.read() for child in children if child.stdout}
    assert len(drawn) == 2


def test_a_function_brings_its_own_copy_of_our_packages(server: str, tmp_path: Path) -> None:
    script = "import sys; print(sorted(m for m in sys.modules if m.startswith('pipelines')))"
    assert fork_server.OWN == ("edge", "fl_runtime", "registry", "pipelines")
    child = forked(server, tmp_path, script, bundled=True)
    assert child.stdout and child.stdout.read() == "[]\n"


def test_functions_start_without_a_fork_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.core import lambda_runtime

    monkeypatch.setattr(lambda_runtime, "subprocess", subprocess)
    fork_workers("mledgeops-nobody-listens")
    worker = lambda_runtime.subprocess.Popen(
        [sys.executable, "-c"], env={}, cwd="/", stderr=lambda_runtime.subprocess.PIPE
    )
    worker.communicate()
    assert worker.returncode == 2


def test_the_cloud_starts_a_server_that_ends_with_it(tmp_path: Path) -> None:
    process, name = start_fork_server({}, tmp_path / "log")
    assert name.startswith(f"mledgeops-{os.getpid()}-")
    assert end(process) != 0
    with pytest.raises(OSError, match="refused"):
        ForkedProcess(name, ForkRequest(environment={}), piped=(False, False, False), text=False)
