"""Every public error of the edge descends from the one root, with a code and an exit code."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import edge
from edge.errors import CodedError, MLEdgeOpsError

FOLDER = Path(edge.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts)
    for file in FOLDER.rglob("*.py")
    if file.name != "__main__.py"
)


@pytest.mark.parametrize("module", MODULES)
def test_no_public_error_is_outside_the_tree(module: str) -> None:
    for name, found in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        ours = found.__module__ == module and issubclass(found, Exception)
        if ours and not name.startswith("_"):
            assert issubclass(found, MLEdgeOpsError), name
            assert found.exit_code in (1, 2)
            assert name in (FOLDER / "errors.py").read_text(), "errors.py draws the tree"


def test_a_coded_error_says_which_case_it_is() -> None:
    error = CodedError("disk-full", "The disk is full.")
    assert (error.code, str(error), error.exit_code) == ("disk-full", "The disk is full.", 2)
    assert MLEdgeOpsError("x").code == "error"
