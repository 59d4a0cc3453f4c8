"""Which tests run which functions of the modules that decide.

``python -m mutants.concerned FILE --modules M... --tests T...`` runs test files once, under
coverage.py, and writes a JSON file (:class:`Concerned`). Tests that fail are named and left out:
they could not tell a mutant from the code.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import coverage
import msgspec
import pytest

SUITES = (
    "tests/unit/edge",
    "tests/unit/fl_runtime",
    "tests/unit/registry",
    "tests/contract",
    "tests/integration/test_block_strategies.py",
    "tests/integration/test_hostile_inputs.py",
    "tests/integration/test_sybils.py",
)


class Concerned(msgspec.Struct, frozen=True):
    """What runs of the tests came to."""

    __test__ = False

    seconds: dict[str, float]
    """How long each test took, by its id."""
    functions: dict[str, dict[str, list[str]]]
    """The functions that a test ran, by module (its path below the root) and test. Functions, since
    lines move.
    """
    files: dict[str, str]
    """Digests of the test files that were run, by their paths below the root."""

    def running(self, module: str, function: str) -> list[str]:
        """The tests that run a function of a module (any of its code, for an empty name)."""
        found = self.functions.get(module, {})
        return [test for test, ran in found.items() if not function or function in ran]

    def outdated(self, root: Path) -> list[str]:
        """The test files that are new or have changed."""
        now = digests(root)
        return [file for file in now if self.files.get(file) != now[file]]

    def updated(self, other: Concerned) -> Concerned:
        """With what another run has found of some files; what was known of them is forgotten."""

        def kept(test: str) -> bool:
            return test.partition("::")[0] not in other.files

        functions = {
            module: {
                **{t: ran for t, ran in self.functions.get(module, {}).items() if kept(t)},
                **other.functions.get(module, {}),
            }
            for module in {*self.functions, *other.functions}
        }
        seconds = {test: took for test, took in self.seconds.items() if kept(test)}
        return Concerned(seconds | other.seconds, functions, self.files | other.files)


def by_line(source: bytes) -> dict[int, str]:
    """The innermost function of each line of a module's functions, by its qualified name.

    Lines of a function's head are those of what is around it: they run when it is defined.
    """
    found: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{name}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = range(child.body[0].lineno, (child.end_lineno or child.lineno) + 1)
                found.update(dict.fromkeys(lines, inner))
            visit(child, inner)

    visit(ast.parse(source), "")
    return found


def digests(root: Path) -> dict[str, str]:
    """All test files of the suites, with digests of what they say."""
    files = sorted(file for suite in SUITES for file in (root / suite).rglob("test_*.py"))
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


class Recorder:
    """A pytest plugin that tells coverage.py which test runs."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._measured.switch_context(item.nodeid)
        yield
        self._measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.seconds.get(report.nodeid, 0.0)
        self.seconds[report.nodeid] = before + report.duration
        if report.failed:
            self.failed.add(report.nodeid)


def recorded(modules: Iterable[str], tests: Sequence[str]) -> Concerned:
    """Run test files of this folder."""
    root = Path.cwd()
    measured = coverage.Coverage(data_file=None, include=list(modules), config_file=False)
    recorder = Recorder(measured)
    measured.start()
    pytest.main(["-q", "--tb=line", "-m", "not cloud and not proof", *tests], [recorder])
    measured.stop()
    functions: dict[str, dict[str, list[str]]] = {}
    data = measured.get_data()
    for file in data.measured_files():
        names = by_line(Path(file).read_bytes())
        ran: dict[str, set[str]] = {}
        for line, contexts in data.contexts_by_lineno(file).items():
            for test in {*contexts} - {""} - recorder.failed:
                ran.setdefault(test, set()).add(names.get(line, ""))
        module = str(Path(file).relative_to(root))
        functions[module] = {test: sorted(found) for test, found in ran.items()}
    known = digests(root)
    return Concerned(recorder.seconds, functions, {file: known[file] for file in tests})


def main() -> int:
    """Record, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--modules", nargs="+", required=True)
    parser.add_argument("--tests", nargs="+", required=True)
    options = parser.parse_args()
    found = recorded(options.modules, options.tests)
    options.file.write_bytes(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
