"""``make structure``: the shape of the code in numbers, for whoever moves things.

Lines and functions above the limits, public classes defined twice, modules that no test imports,
and the arrows between the rooms (folders and modules) of each package. Reads files as text.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

PACKAGES = ("edge", "fl_runtime", "registry", "pipelines")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> dict[str, Path]:
    """Our modules by dotted name, a package under its own name."""
    files = (f for package in PACKAGES for f in (root / package).rglob("*.py"))
    names = {f: f.relative_to(root).with_suffix("").as_posix().replace("/", ".") for f in files}
    return {name.removesuffix(".__init__"): f for f, name in names.items()}


def tests(root: Path) -> list[Path]:
    """The Python files below ``tests``."""
    return [f for f in (root / "tests").rglob("*.py") if "node_modules" not in f.parts]


def imports(file: Path, known: set[str]) -> set[str]:
    """Which of the known modules a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
    return found & known


def room(module: str) -> str:
    """The folder or module directly below a package that a module belongs to."""
    return ".".join(module.split(".")[:2])


def length(function: Function) -> int:
    """Lines of a function, its signature and docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def methods(node: ast.ClassDef) -> int:
    """Methods of a class, private ones and ``__init__`` included."""
    return sum(isinstance(member, Function) for member in node.body)


def is_data(node: ast.ClassDef) -> bool:
    """Whether a class is plain data: a dataclass, a msgspec structure, a named tuple."""
    marks = [*node.decorator_list, *node.bases]
    return any(re.search(r"dataclass|Struct|NamedTuple", ast.unparse(mark)) for mark in marks)


def _functions(file: Path) -> list[tuple[int, str]]:
    return [
        (length(node), f"{file.name}:{node.name}")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, Function)
    ]


def _classes(file: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]


def repeated(root: Path) -> dict[str, list[str]]:
    """Names of public classes that more than one module defines, with these modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, file in modules(root).items():
        for node in _classes(file):
            if not node.name.startswith("_"):
                found[node.name].append(module)
    return {name: where for name, where in sorted(found.items()) if len(where) > 1}


def unreached(root: Path) -> list[str]:
    """Modules that no test imports, packages and their ``__main__`` apart."""
    ours = modules(root)
    reached = {m for f in tests(root) for m in imports(f, set(ours))}
    return sorted(
        m
        for m, f in ours.items()
        if m not in reached and f.stem not in ("__init__", "__main__") and "/app/" not in str(f)
    )


def _arrows(root: Path) -> dict[str, set[tuple[str, str]]]:
    """By package, which of its rooms import which others."""
    ours = modules(root)
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for module, file in ours.items():
        package = module.split(".")[0]
        for other in imports(file, set(ours)):
            if other.split(".")[0] == package and room(other) != room(module) != package != other:
                found[package].add((room(module), room(other)))
    return found


def _sizes(root: Path) -> list[str]:
    """Lines, modules, functions and classes, a line of text each."""
    ours = modules(root)
    lines = [x for f in (*ours.values(), *tests(root)) for x in f.read_text().splitlines()]
    sizes = sorted((len(f.read_text().splitlines()), name) for name, f in ours.items())
    functions = sorted(x for f in ours.values() for x in _functions(f))
    classes = [(methods(n), f"{m}:{n.name}") for m, f in ours.items() for n in _classes(f)]
    off = sum(bool(re.search(r"#\s*fmt:", x)) for x in lines)
    large = [f"{name} {n}" for n, name in sorted(classes, reverse=True) if n > 10]
    return [
        f"lines {len(lines)}, above 100 columns {sum(len(x) > 100 for x in lines)}, "
        f"formatter switched off {off}",
        f"modules {len(sizes)}, median {sizes[len(sizes) // 2][0]} lines, "
        f"largest {sizes[-1]}, above 400: {sum(n > 400 for n, _ in sizes)}",
        f"functions {len(functions)}, median {functions[len(functions) // 2][0]} lines, "
        f"largest {functions[-1]}, above 60: {sum(n > 60 for n, _ in functions)}",
        f"classes with more than ten methods {len(large)}: {', '.join(large)}",
    ]


def report(root: Path) -> list[str]:
    """The numbers, a line each."""
    twice, untested = repeated(root), unreached(root)
    rooms = {
        package: {room(m) for m in modules(root) if m.startswith(package + ".")}
        for package in PACKAGES
    }
    return [
        *_sizes(root),
        f"public classes defined twice {len(twice)}: {', '.join(twice)}",
        f"modules that no test imports {len(untested)}: {', '.join(untested)}",
        *(
            f"{package}: {len(rooms[package])} rooms, {len(found)} arrows between them"
            for package, found in sorted(_arrows(root).items())
        ),
    ]


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sys.stdout.write("\n".join(report(root)) + "\n")
