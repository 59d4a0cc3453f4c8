"""The quickstart notebook runs from top to bottom, and the committed one shows what it printed."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from support.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"


@pytest.mark.proof
def test_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    from execute import execute

    done = execute(NOTEBOOK)
    texts = [
        output.get("data", {}).get("text/plain", "")
        for cell in done.cells
        for output in cell.get("outputs", [])
    ]
    assert any("'Succeeded', 'rmse_kw'" in text for text in texts)
    assert any("PendingManualApproval" in text for text in texts)
    assert any(
        "image/png" in output.get("data", {})
        for cell in done.cells
        for output in cell.get("outputs", [])
    ), "the curves are drawn"
    sys.modules.pop("execute")


def test_the_committed_notebook_has_its_outputs_and_no_path_of_a_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(
        cell.outputs
        for cell in notebook.cells
        if cell.cell_type == "code"
        and not cell.source.startswith(("import warnings", "desk.close"))
    )
    assert not any(part in NOTEBOOK.read_text() for part in ("/root/", "/home/", "/work/", "/tmp/"))
