"""Imports go one way: edge <- fl_runtime <- registry <- pipelines."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

OURS = {"edge", "fl_runtime", "registry", "pipelines"}
ALLOWED = {
    "edge": {"edge"},
    "fl_runtime": {"edge", "fl_runtime"},
    "registry": {"edge", "fl_runtime", "registry"},
    "pipelines": OURS,
}
LIGHT = {
    "edge/protocol": {"flwr", "torch", "boto3", "mlflow"},
    "fl_runtime/proxy.py": {"flwr", "torch", "mlflow"},
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_follow_the_direction(package: str) -> None:
    wrong = {
        str(f.relative_to(ROOT)): bad
        for f in (ROOT / package).rglob("*.py")
        if (bad := (imported(f) & OURS) - ALLOWED[package])
    }
    assert wrong == {}


def test_apps_import_nothing_of_ours() -> None:
    assert {
        str(f): bad
        for f in (ROOT / "notebooks" / "apps").rglob("*.py")
        if (bad := imported(f) & OURS)
    } == {}


def test_protocol_is_light() -> None:
    for file in (ROOT / "edge" / "protocol").rglob("*.py"):
        assert not imported(file) & LIGHT["edge/protocol"], file


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fl_runtime.proxy", ("flwr", "torch", "mlflow", "sagemaker")),
        ("edge.agent.main", ("flwr", "torch", "boto3", "mlflow")),
        ("pipelines.handlers.discover", ("flwr", "torch", "mlflow", "sagemaker")),
        ("pipelines.handlers.enrol", ("numpy", "jinja2", "mlflow", "sagemaker")),
    ],
)
def test_light_processes_load_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_modules_and_functions_stay_short() -> None:
    long_modules = {
        str(f): n
        for p in OURS
        for f in (ROOT / p).rglob("*.py")
        if (n := len(f.read_text().splitlines())) > 400
    }
    long_functions = [
        f"{f.name}:{node.name}"
        for p in OURS
        for f in (ROOT / p).rglob("*.py")
        for node in ast.walk(ast.parse(f.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno > 60
    ]
    assert (long_modules, long_functions) == ({}, [])
