"""``make structure``: the shape of the code in numbers, for whoever moves things.

Lines and functions above the limits, public classes defined twice, modules that no test imports,
and the arrows between the rooms (folders and modules) of each package. Reads files as text.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

PACKAGES = ("edge", "fl_runtime", "registry", "pipelines")


def _modules(root: Path) -> dict[str, Path]:
    """Our modules by dotted name, a package under its own name."""
    files = (f for package in PACKAGES for f in (root / package).rglob("*.py"))
    names = {f: f.relative_to(root).with_suffix("").as_posix().replace("/", ".") for f in files}
    return {name.removesuffix(".__init__"): f for f, name in names.items()}


def imports(file: Path, known: set[str]) -> set[str]:
    """Which of the known modules a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & known or {node.module}
    return found & known


def _functions(file: Path) -> list[tuple[int, str]]:
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{file}:{node.name}")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _classes(file: Path) -> list[tuple[int, str]]:
    return [
        (sum(isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef) for m in node.body), node.name)
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]


def _room(module: str) -> str:
    """The folder or module directly below a package that a module belongs to."""
    return ".".join(module.split(".")[:2])


def report(root: Path) -> list[str]:
    """The numbers, a line each."""
    modules = _modules(root)
    known = set(modules)
    tests = [f for f in (root / "tests").rglob("*.py") if "node_modules" not in f.parts]
    python = [*modules.values(), *tests]
    lines = [line for f in python for line in f.read_text().splitlines()]
    sizes = sorted(
        (len(f.read_text().splitlines()), str(f.relative_to(root))) for f in modules.values()
    )
    functions = sorted(x for f in modules.values() for x in _functions(f))
    classes = sorted(
        (n, f"{f.relative_to(root)}:{name}") for f in modules.values() for n, name in _classes(f)
    )
    public = Counter(
        name for f in modules.values() for _, name in _classes(f) if not name.startswith("_")
    )
    tested = {m for f in tests for m in imports(f, known)}
    unreached = sorted(
        m for m, f in modules.items() if m not in tested and f.stem not in ("__init__", "__main__")
    )
    arrows: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for module, file in modules.items():
        for other in imports(file, known):
            if other.split(".")[0] == module.split(".")[0] and _room(other) != _room(module):
                arrows[module.split(".")[0]].add((_room(module), _room(other)))
    switched = sum(bool(re.search(r"#\s*fmt:", line)) for line in lines)
    return [
        f"lines {len(lines)}, above 100 columns {sum(len(line) > 100 for line in lines)}, formatter switched off {switched}",
        f"modules {len(sizes)}, median {sizes[len(sizes) // 2][0]} lines, largest {sizes[-1]}, above 400: {sum(n > 400 for n, _ in sizes)}",
        f"functions {len(functions)}, median {functions[len(functions) // 2][0]} lines, largest {functions[-1]}, above 60: {sum(n > 60 for n, _ in functions)}",
        f"classes with more than ten methods {sum(n > 10 for n, _ in classes)}: {', '.join(f'{name} {n}' for n, name in reversed(classes) if n > 10)}",
        f"public classes defined twice {sum(n > 1 for n in public.values())}: {', '.join(sorted(name for name, n in public.items() if n > 1))}",
        f"modules that no test imports {len(unreached)}: {', '.join(unreached)}",
        *(
            f"{package}: {len({_room(m) for m in modules if m.startswith(package + '.')})} rooms, {len(found)} arrows between them"
            for package, found in sorted(arrows.items())
        ),
    ]


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sys.stdout.write("\n".join(report(root)) + "\n")
