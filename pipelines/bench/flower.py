"""Flower's own deployment of an app: a SuperLink, a SuperNode for each device, ``flwr run``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from pipelines.errors import UsageError
from pipelines.local.processes import end, free_port, port_in_use

START_SECONDS = 60.0
TOLD = 2000
"""Characters of a log that an error quotes."""


def run_on_flower(
    home: Path, app: Path, devices: int, settings: Mapping[str, object], seconds: float
) -> None:
    """Run an app to its end on a deployment of its own, without TLS.

    Args:
        home: Folder for Flower's configuration and logs.
        app: The Flower app's folder.
        devices: How many SuperNodes to start.
        settings: Replace the app's own configuration.
        seconds: How long the run may take.

    Raises:
        UsageError: The deployment did not start, or the run did not end well in time.

    """
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(home, "flower-superlink", _listening(port)))
        _await_port(home, port)
        for index in range(devices):
            node = f"partition-id={index} num-partitions={devices}"
            options = ["--superlink", f"127.0.0.1:{port}", "--node-config", node]
            options += _listening(free_port())
            stack.enter_context(_running(home, "flower-supernode", options, index))
        given = " ".join(f"{key}={_toml(value)}" for key, value in settings.items())
        command = [_tool("flwr"), "run", str(app), "bench", "--stream", "--run-config", given]
        try:
            done = subprocess.run(
                command, env=_environment(home), capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"Flower's run had not ended after {seconds:.0f} s.") from error
    if done.returncode:
        raise UsageError(f"Flower's run failed: {(done.stderr or done.stdout)[-TOLD:]}")


def _listening(port: int) -> list[str]:
    return ["--insecure", "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def _running(home: Path, tool: str, options: Sequence[str], index: int = 0) -> Iterator[None]:
    """Run one of Flower's processes while the block lasts, with those that it starts."""
    with (home / f"{tool}-{index}.log").open("ab") as log:
        process = subprocess.Popen(
            [_tool(tool), *options],
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        started = _descendants(process.pid)
        end(process)
        for child in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _await_port(home: Path, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not port_in_use(port):
        if time.monotonic() > deadline:
            raise UsageError(f"Flower's SuperLink did not start: see the logs in {home}.")
        time.sleep(0.1)


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": path}


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
