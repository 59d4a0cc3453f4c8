"""Run a notebook and write its outputs back: ``python execute.py NOTEBOOK [--check]``."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 300


def execute(file: Path) -> nbformat.NotebookNode:
    """Run all cells in the notebook's own folder; raises CellExecutionError for one that fails."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(file.parent)}},
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run: noise in a diff
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1])
    done = execute(path)
    if "--check" not in sys.argv:
        nbformat.write(done, path)
