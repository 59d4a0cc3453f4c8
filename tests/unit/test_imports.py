"""The shape of the code: imports in one direction, layers in each package, nothing too large."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache

import pytest
import structure
from structure import room
from support.paths import ROOT

PACKAGES = ["edge", "fl_runtime", "registry", "pipelines"]
"""Each may import those before it."""

LAYERS: dict[str, list[set[str]]] = {
    "edge": [
        {"errors"},
        {"typed"},
        {"clock", "files", "frames", "logs", "memory", "protocol"},
        {"addresses"},
        {"config", "object_transfer"},
        {"identity"},
        {"training", "transports"},
        {"greengrass", "serving"},
        {"agent"},
    ],
    "fl_runtime": [{"run"}, {"aggregation"}, {"cohort"}, {"proxy", "server"}],
    "registry": [
        {"errors"},
        {"audit", "model_version"},
        {"mlflow_registry", "policy", "provenance", "sagemaker_registry"},
        {"approval", "evidence", "identity", "link_function", "run_record"},
        {"linking", "promotion", "record_signer", "rollout"},
        {"reconcile", "trace"},
        {"wiring"},
    ],
    "pipelines": [
        {"errors"},
        {"deployment"},
        {"aws", "devices", "run", "starters"},
        {"handlers", "local", "step"},
        {"desk"},
        {"bench", "chaos"},
        {"cli"},
    ],
}
"""The folders and modules of each package from the bottom up. Each may import what lies in a lower
layer, nothing beside it and nothing above.
"""

LIMITS = {"lines of a module": 400, "lines of a function": 60, "methods of a class": 12}


@cache
def arrows() -> dict[str, set[str]]:
    """What each of our modules imports of ours, at any depth of its code."""
    modules = structure.modules(ROOT)
    known = set(modules)
    return {name: structure.imports(file, known) - {name} for name, file in modules.items()}


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that lead to each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set(), list(graph[start])
        while todo:
            if (node := todo.pop()) not in seen:
                seen.add(node)
                todo += graph.get(node, ())
        reach[start] = seen
    found = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph}
    return sorted(sorted(group) for group in found if group)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction(package: str) -> None:
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = {
        (module, other)
        for module, others in arrows().items()
        for other in others
        if module.split(".")[0] == package and other.split(".")[0] not in allowed
    }
    assert wrong == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_layer_and_imports_only_from_below(package: str) -> None:
    layer = {f"{package}.{name}": at for at, names in enumerate(LAYERS[package]) for name in names}
    rooms = {room(module) for module in arrows() if module.startswith(f"{package}.")}
    assert rooms == set(layer), "LAYERS lists the folders and modules that exist"
    wrong = {
        (room(module), room(other))
        for module, others in arrows().items()
        for other in others
        if room(module) in layer and room(other) in layer and room(module) != room(other)
        if layer[room(other)] >= layer[room(module)]
    }
    assert wrong == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    packages = {
        module for module, file in structure.modules(ROOT).items() if "__init__" in str(file)
    }
    folder = {m: m if m in packages else m.rpartition(".")[0] for m in arrows()}
    graph: dict[str, set[str]] = {name: set() for name in folder.values()}
    for module, others in arrows().items():
        here = folder[module]
        # A folder and the folder around it are one room: their modules may refer to each other.
        graph[here] |= {
            there
            for there in (folder[other] for other in others)
            if there != here
            and not there.startswith(f"{here}.")
            and not here.startswith(f"{there}.")
        }
    assert circles(graph) == []


def test_nobody_imports_a_lambda_function_or_the_command_line() -> None:
    handlers = (ROOT / "pipelines" / "handlers").glob("*.py")
    functions = {
        f"pipelines.handlers.{f.stem}" for f in handlers if "def handler(" in f.read_text()
    }
    assert len(functions) >= 9
    for module, others in arrows().items():
        assert not others & functions, module
        if not module.startswith("pipelines.cli"):
            assert not {o for o in others if o.startswith("pipelines.cli")}, module


def test_apps_import_nothing_of_ours() -> None:
    known = set(structure.modules(ROOT))
    for file in (ROOT / "notebooks" / "apps").rglob("*.py"):
        assert not structure.imports(file, known), file


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("edge.protocol", ("flwr", "torch", "boto3", "mlflow", "numpy.testing")),
        ("fl_runtime.proxy", ("flwr", "torch", "mlflow", "sagemaker")),
        ("edge.agent", ("flwr", "torch", "boto3", "mlflow")),
        ("edge.agent.agent", ("flwr", "torch", "boto3", "mlflow")),
        ("pipelines.handlers.discover", ("flwr", "torch", "mlflow", "sagemaker")),
    ],
)
def test_light_processes_load_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_modules_functions_and_classes_stay_small() -> None:
    large: dict[str, list[str]] = {what: [] for what in LIMITS}
    for name, file in structure.modules(ROOT).items():
        text = file.read_text()
        if len(text.splitlines()) > LIMITS["lines of a module"]:
            large["lines of a module"].append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if structure.length(node) > LIMITS["lines of a function"]:
                    large["lines of a function"].append(f"{name}.{node.name}")
            elif isinstance(node, ast.ClassDef) and not structure.is_data(node):
                count = structure.methods(node)
                large["methods of a class"] += [f"{name}.{node.name}"] * (
                    count > LIMITS["methods of a class"]
                )
    assert large == {what: [] for what in LIMITS}


def test_public_class_names_mean_one_thing() -> None:
    assert structure.repeated(ROOT) == {}


def test_every_module_is_imported_by_a_test() -> None:
    assert structure.unreached(ROOT) == []


def test_no_test_module_imports_another_or_conftest() -> None:
    """What tests share lives in tests/fakes and tests/support."""
    wrong = [
        (str(file.relative_to(ROOT)), node.module)
        for file in structure.tests(ROOT)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[-1].startswith(("test_", "conftest"))
    ]
    assert wrong == []
