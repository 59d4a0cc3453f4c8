"""What an app's modules import, read from their source: nothing of the app runs.

Only what runs whatever happens counts: imports at the top of a module. Those inside a function, a
condition or a ``try`` may never run, or have a substitute.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.training.app_bundle import site_of
from edge.training.app_modules import import_roots

_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
"""Names that a heartbeat can carry."""
_MODULES = 500
"""Modules of an app that are read at most."""


def foreign_imports(folder: Path, reference: str) -> list[str]:
    """Return the dotted names that a component imports from outside its app, sorted.

    Args:
        folder: The app's folder.
        reference: ``module:attribute``.

    """
    roots = [Path(root) for root in import_roots(folder)]
    waiting, seen, foreign = [reference.partition(":")[0]], set[str](), set[str]()
    while waiting and len(seen) < _MODULES:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        files = _files(roots, name)
        if not files:
            foreign.add(name)
        for package, file in files:
            waiting.extend(_imported(package, file, roots))
    return sorted(foreign)


def missing_modules(folder: Path, reference: str, path: Sequence[str] = ()) -> list[str]:
    """Return the top-level modules that a component imports and this device lacks, sorted.

    Args:
        folder: The app's folder.
        reference: ``module:attribute``.
        path: Where else its worker looks for modules.

    """
    importlib.invalidate_caches()  # one may have been installed in the meantime
    roots = [Path(root) for root in import_roots(folder)]
    tops = {name.partition(".")[0] for name in foreign_imports(folder, reference)}
    return sorted(
        name
        for name in tops
        if _NAME.fullmatch(name)
        and not any((root / name).is_dir() for root in roots)  # the app's own, without __init__
        and not _exists(name, [*path, str(site_of(folder))])
    )


def _exists(name: str, path: list[str]) -> bool:
    """Whether a module can be found, which imports nothing."""
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return True
    return importlib.machinery.PathFinder.find_spec(name, path) is not None


def _files(roots: list[Path], name: str) -> list[tuple[str, Path]]:
    """The files that importing one of the app's modules runs: its packages' and its own, each with
    the package that it is in. Empty for a module of others.
    """
    parts = name.split(".")
    for root in roots:
        own = root.joinpath(*parts)
        if not (own.is_dir() or own.with_name(f"{own.name}.py").is_file()):
            continue
        found = []
        for number in range(1, len(parts) + 1):
            place, here = root.joinpath(*parts[:number]), ".".join(parts[:number])
            found.append((here, place / "__init__.py"))
            found.append((here.rpartition(".")[0], place.with_name(f"{place.name}.py")))
        return [(package, file) for package, file in found if file.is_file()]
    return []


def _imported(package: str, file: Path, roots: list[Path]) -> Iterator[str]:
    """Yield the absolute names that a module imports at its top."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # importing it says what is wrong
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                above = package.split(".")[: len(package.split(".")) - statement.level + 1]
                base = ".".join([*above, base] if base else above)
            if not base:
                continue
            yield base
            # `from package import module` runs the module.
            inside = (f"{base}.{alias.name}" for alias in statement.names)
            yield from (name for name in inside if _files(roots, name))
