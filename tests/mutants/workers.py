"""Runs tests on mutants: a copy of the code for each worker, a process for each mutant.

A worker has the libraries loaded and forks for each mutant, so that a mutant costs its tests and
the import of our own code. The copy holds the mutant's file, so programs that a test starts have
the change as well.
"""

from __future__ import annotations

import compileall
import gc
import importlib
import json
import os
import py_compile
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

COPIED = ("edge", "fl_runtime", "registry", "pipelines", "notebooks", "tests", "docs")
LOADED = ("mlflow.tracking", "flwr.clientapp", "flwr.serverapp.strategy", "pandas")
"""Libraries that tests load when they run, and take seconds."""
NOT_LOADED = ("grpc", "awscrt", "awsiot", "torch")
"""Libraries with threads of their own, which a forked process would lack."""
CPU_SECONDS = 12
"""Processor time of a mutant's tests, far above what they take: of a loop without an end."""
SURVIVED, KILLED, ENDLESS = "survived", "killed", "endless"


def copied(root: Path, to: Path) -> Path:
    """A copy of the code and the tests."""
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", ".*", "corpus")
    for name in COPIED:
        shutil.copytree(root / name, to / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copyfile(root / name, to / name)
    return to


def environment(root: Path) -> dict[str, str]:
    """The variables of a process whose code is a copy; its bytecode is never another text's."""
    path = os.pathsep.join([str(root), str(root / "tests")])
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def prepare(root: Path) -> None:
    """Make this process a worker whose code is a copy, with bytecode."""
    os.chdir(root)
    os.environ.update(environment(root))
    sys.dont_write_bytecode = True
    sys.path[:] = [str(root), str(root / "tests"), *sys.path]
    # Bytecode that is valid by its source's digest: two mutants may have one size and one time.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    for name in COPIED:
        compileall.compile_dir(root / name, quiet=2, invalidation_mode=mode)


def collected(tests: Iterable[str], listing: Path) -> set[str]:
    """Those of these tests that there are in the unchanged copy; ``listing`` is a file for them.

    Loads the libraries that they have loaded, so that each mutant's process has them.
    """
    files = sorted({test.partition("::")[0] for test in tests})
    listing.unlink(missing_ok=True)
    _pytest(["--collect-only", *(file for file in files if Path(file).is_file())], 600.0, listing)
    found = json.loads(listing.read_text()) if listing.is_file() else {"tests": [], "modules": []}
    for name in (*found["modules"], *LOADED):
        with suppress(Exception):  # a part of a library that cannot be imported by itself
            importlib.import_module(name)
    gc.freeze()  # what a mutant's process has inherited is no garbage of its own
    return set(tests) & set(found["tests"])


def tried(file: Path, text: bytes, tests: Sequence[str], seconds: float) -> str:
    """What the tests say to a file's text; the file is as before afterwards.

    Raises SyntaxError for a text that is no Python: such a mutant would count as killed.
    """
    compile(text, str(file), "exec")
    before = file.read_bytes()
    file.write_bytes(text)
    try:
        code = _pytest(["-x", *tests], seconds)
    finally:
        file.write_bytes(before)
    if code in (None, -signal.SIGXCPU):
        return ENDLESS
    return KILLED if code else SURVIVED


class _Listing:
    """A pytest plugin that writes down the tests that were found, and the libraries' modules."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        libraries = [
            name
            for name, module in sorted(sys.modules.items())
            if "site-packages" in str(getattr(module, "__file__", None))
            and name.partition(".")[0] not in NOT_LOADED
        ]
        tests = [item.nodeid for item in session.items]
        self._file.write_text(json.dumps({"tests": tests, "modules": libraries}))


def _pytest(arguments: Sequence[str], seconds: float, listing: Path | None = None) -> int | None:
    """pytest's exit code in a process of its own; None when it took too long and was ended."""
    child = os.fork()
    if child == 0:
        _run_and_exit(arguments, [_Listing(listing)] if listing else [])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _end(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _end(child)
    os.waitpid(child, 0)
    return None


def _end(group: int) -> None:
    """End a mutant's process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _run_and_exit(arguments: Sequence[str], plugins: Sequence[object]) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        if not plugins:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        # The rewritten tests are kept when they are collected; they never change.
        sys.dont_write_bytecode = not plugins
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        code = int(pytest.main(["-q", "--tb=no", *arguments], plugins))
    finally:
        os._exit(code)
