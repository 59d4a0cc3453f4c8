"""A user at a shell: starts ``mledgeops`` in a home, presses Ctrl-C, reads what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from edge.typed import from_json
from pipelines.local.home import VARIABLE, Home

COMMAND_SECONDS = 600.0
"""A command that takes longer counts as hung, and is killed."""
APP = Path(__file__).parents[1] / "app"
RUN = ("run", str(APP), "--devices", "2", "--rounds", "3", "--phase-seconds", "60", "--json")


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended."""

    code: int
    """Its exit code; that of a killed one is negative."""
    document: dict[str, Any]
    """What ``--json`` printed. Empty when it printed nothing."""
    complaint: str
    """Its standard error."""
    seconds: float


class UserCommand:
    """A command under way, with output to files, so that none of its pipes fills up."""

    def __init__(self, home: Home, arguments: tuple[str, ...]) -> None:
        self._files = [home.root.with_name(f"{home.root.name}.{kind}") for kind in ("out", "err")]
        self._began = time.monotonic()
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = subprocess.Popen(
                # Whoever runs us in the background has Ctrl-C ignored, and children inherit that.
                [sys.executable, "-c", _ENTRY, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**_without_clouds(os.environ), VARIABLE: str(home.root)},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def press_ctrl_c(self) -> None:
        """Interrupt it, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def said(self, seconds: float = COMMAND_SECONDS) -> Said:
        """Wait for its end; one that takes longer than ``seconds`` is killed."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        out, err = (file.read_text(errors="replace") for file in self._files)
        try:
            document = from_json(out, type=dict[str, Any])
        except msgspec.DecodeError:
            document = {}
        seconds = time.monotonic() - self._began
        code = self._process.returncode
        return Said(code=code, document=document, complaint=err, seconds=seconds)


_ENTRY = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pipelines.cli.entry import main; sys.exit(main())"
)


@dataclass(frozen=True)
class Shell:
    """A shell in which ``MLEDGEOPS_HOME`` is one home."""

    home: Home

    def start(self, *arguments: str) -> UserCommand:
        """Start a command."""
        self.home.root.parent.mkdir(parents=True, exist_ok=True)
        return UserCommand(self.home, arguments)

    def run(self, *arguments: str) -> Said:
        """Run a command to its end."""
        return self.start(*arguments).said()

    def processes(self) -> list[psutil.Process]:
        """All processes that work in this home, except those that are only waited for."""
        return list(_processes_of(str(self.home.root)))

    def daemon(self, seconds: float = 120.0) -> psutil.Process | None:
        """The local cloud's process, if there is one in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (info := self.home.info()) is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    return psutil.Process(info.pid)
            time.sleep(0.05)
        return None


def _without_clouds(environment: Mapping[str, str]) -> dict[str, str]:
    """A user's environment: this process's own leads to the suite's cloud."""
    ours = ("AWS_", "MLEDGEOPS_", "MLFLOW_")
    return {name: value for name, value in environment.items() if not name.startswith(ours)}


def _processes_of(root: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(VARIABLE) == root:
                yield process
