"""Imports an app's own modules from its folder. The app's code may raise anything."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.training.app_bundle import AppError, site_of
from edge.training.app_traceback import failure_text

_INVALIDATING = threading.Lock()


def import_roots(folder: Path) -> list[str]:
    """Return the folders that an app's modules are imported from: its own, and its ``src``.

    With the latter layout Flower imports the app's package once it is installed.
    """
    source = folder / "src"
    return [str(folder), str(source)] if source.is_dir() else [str(folder)]


@contextlib.contextmanager
def app_on_path(folder: Path) -> Iterator[None]:
    """Make the app's modules importable for a while, before others of the same name."""
    roots = import_roots(folder)
    sys.path[:0] = roots
    try:
        yield
    finally:
        _leave_path(roots)


def _leave_path(roots: list[str]) -> None:
    for root in roots:
        with contextlib.suppress(ValueError):  # an app may have removed it
            sys.path.remove(root)


def load_component(folder: Path, reference: str, expected: type[Any]) -> Any:
    """Import ``module:attribute`` from an app's folder. The attribute may have dots, as in Flower.

    The folder stays on ``sys.path``: an app may import its modules later.

    Raises:
        AppError: The import failed, with the app's own reason, or gave another type.

    """
    module_name, _, attribute = reference.partition(":")
    sys.path[:0] = [root for root in import_roots(folder) if root not in sys.path]
    site = str(site_of(folder))
    if site not in sys.path and Path(site).is_dir():
        # Last: the packages that the agent itself runs with take precedence.
        sys.path.append(site)
    # Two threads that invalidate at the same time delete an entry twice, and Python raises.
    with _INVALIDATING:
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
        component: Any = functools.reduce(getattr, attribute.split("."), module)
    except Exception as error:  # the app's own code runs here and may raise anything
        raise AppError(
            f"{reference} in {folder.name} cannot be imported: {failure_text(error, folder)}"
        ) from error
    if not isinstance(component, expected):
        raise AppError(
            f"{reference} in {folder.name} is a {type(component).__name__},"
            f" not a {expected.__name__}."
        )
    return component


def forget_modules(folder: Path, reference: str) -> None:
    """Forget modules of other apps that hide ``reference``, so that ``folder``'s are imported.

    Two versions of an app have the same module names, and Python imports a name only once.
    """
    top, inside = reference.partition(":")[0].partition(".")[0], f"{folder}/"
    for name, module in sys.modules.copy().items():  # in one step: other threads import too
        file = str(getattr(module, "__file__", None) or "")
        if name.partition(".")[0] == top and not file.startswith(inside):
            del sys.modules[name]
    _leave_path(import_roots(folder))
