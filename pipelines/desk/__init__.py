"""What notebooks and commands work with.

- ``notebook``: what ``pipelines.connect`` gives: runs, models and decisions from a notebook;
- ``Desk``: the same as in 0.4;
- ``clouds``: the local cloud or an AWS account, as the user chooses;
- ``access``, ``wiring``: the AWS clients of notebooks and commands, each made in one place;
- ``runs``: what MLflow and the logs tell of runs; ``decisions``: approving and rejecting versions.

``pipelines.cli`` imports from all of them; nothing here imports the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.desk.desk import Desk as Desk


def __getattr__(name: str) -> Any:
    """Import the desk when it is first asked for: it takes half a second."""
    if name == "Desk":
        from pipelines.desk.desk import Desk

        return Desk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
