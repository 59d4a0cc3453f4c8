"""The lines of an app in what it raises."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edge.training.app_traceback import app_lines, failure_text


def raised(file: Path) -> BaseException:
    """What the file's ``load`` raises."""
    found = importlib.util.spec_from_file_location(file.stem, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    try:
        module.load()
    except ValueError as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_app_behind_a_link_is_named_by_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "real" / "task.py").write_text("def load():\n    raise ValueError('no data')\n")
    for through in ("real", "linked"):
        error = raised(tmp_path / through / "task.py")
        assert app_lines(error, tmp_path / "linked") == ["task.py:2 in load"]
        text = failure_text(error, tmp_path / "linked")
        assert text == "ValueError: no data (task.py:2 in load)"
    assert failure_text(error, tmp_path / "other") == "ValueError: no data"
