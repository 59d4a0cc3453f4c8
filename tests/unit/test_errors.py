"""The error tree: every public exception class is below the root, and the drawing names its top."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import edge
import fl_runtime
import pipelines
import registry
from edge import errors
from edge.errors import MLEdgeOpsError

NOT_IMPORTED = re.compile(
    r"__main__$"
    r"|^pipelines\.chaos\.app\.steady\.client_app$"  # an app: it imports itself as `steady`
    r"|^pipelines\.aws\.(app|stacks)"  # needs the CDK, which only `make templates` installs
)


def exceptions() -> dict[str, type[Exception]]:
    """Public exception classes of the four packages, by their full name.

    What descends from BaseException alone is a signal that nobody catches, and no error.
    """
    found = {}
    for package in (edge, fl_runtime, registry, pipelines):
        for item in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if NOT_IMPORTED.search(item.name):
                continue
            module = importlib.import_module(item.name)
            for name, value in inspect.getmembers(module, inspect.isclass):
                own = value.__module__ == module.__name__ and not name.startswith("_")
                if own and issubclass(value, Exception):
                    found[f"{module.__name__}.{name}"] = value
    return found


def test_every_public_exception_is_below_the_root() -> None:
    outside = [name for name, cls in exceptions().items() if not issubclass(cls, MLEdgeOpsError)]
    assert outside == [], "make it private, or let it descend from MLEdgeOpsError"


def test_the_drawing_names_the_roots_children_and_no_others() -> None:
    children = {cls.__name__ for cls in exceptions().values() if MLEdgeOpsError in cls.__bases__}
    drawn = set(re.findall(r"^  x (\w+)", errors.__doc__ or "", re.MULTILINE))
    assert drawn == children


def test_each_class_has_an_exit_code_and_a_stable_code() -> None:
    for name, cls in exceptions().items():
        assert cls.exit_code in (1, 2), name
        assert isinstance(cls.code, str), name
        assert not cls.__name__.startswith("MLEdgeOps") or cls.code == "error"
