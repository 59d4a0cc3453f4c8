"""Notebooks 02 and 04 run from top to bottom, and the committed ones show what they printed."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from support.commands import mledgeops
from support.paths import ROOT

ROLL_BACK = ROOT / "notebooks" / "04-approve-roll-out-roll-back.ipynb"
OWN_APP = ROOT / "notebooks" / "02-bring-your-own-app.ipynb"


@pytest.mark.proof
def test_an_app_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = run(OWN_APP, tmp_path, monkeypatch)
    assert any("'Succeeded', 'accuracy'" in text for text in texts)
    assert any("no metric 'acuracy' in round 1" in text for text in texts)
    assert any("(wine/client_app.py:27 in train)" in text for text in texts)
    assert any("app.local-steps" in text and "strategy.fraction_train" in text for text in texts)


@pytest.mark.proof
def test_versions_are_approved_rolled_out_and_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = run(ROLL_BACK, tmp_path, monkeypatch)
    assert sum("'Succeeded'" in text for text in texts) == 2, "both approvals rolled out"
    assert any("rollout 3 of digits/1" in text and "3 switched" in text for text in texts)
    assert any("the trail is intact" in text for text in texts)


def run(notebook: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Execute a notebook; returns the texts of its results."""
    monkeypatch.setenv("MLEDGEOPS_HOME", str(home))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # its folder is not the checkout
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    from execute import execute

    try:
        done = execute(notebook)
    finally:  # the local cloud outlives the kernel
        sys.modules.pop("execute")
        mledgeops("local", "down", home=home)
    return [
        output.get("data", {}).get("text/plain", "") + output.get("text", "")
        for cell in done.cells
        for output in cell.get("outputs", [])
    ]


@pytest.mark.parametrize("notebook", [OWN_APP, ROLL_BACK], ids=lambda file: file.stem)
def test_a_committed_notebook_can_be_read_without_running_it(notebook: Path) -> None:
    read = nbformat.read(notebook, as_version=4)
    silent = ("import ",)
    assert all(
        cell.outputs
        for cell in read.cells
        if cell.cell_type == "code" and not cell.source.startswith(silent)
    )
    text = notebook.read_text()
    assert not any(part in text for part in ("/root/", "/home/", "/work/", "/tmp/"))
