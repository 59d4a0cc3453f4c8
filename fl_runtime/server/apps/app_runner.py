"""Runs an app's ServerApp on a grid, whichever of Flower's interfaces it uses."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from flwr.app import ArrayRecord, Context
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Result

from edge.training.app_traceback import app_lines
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.apps.legacy_app import run_server_fn
from fl_runtime.server.apps.own_rounds import EndedEarlyError, OwnRounds
from fl_runtime.server.grid.flower_compat import own_starts, round_loop, uses_server_fn
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.round_loop import FinishedRounds, RoundLoop

logger = logging.getLogger(__name__)


def run_app(
    app: ServerApp,
    grid: IoTGrid,
    context: Context,
    loop: RoundLoop,
    folder: Path | None = None,
) -> FinishedRounds:
    """Run the app to its end, with our round loop in the place of ``Strategy.start``.

    An app that sends its messages itself is recorded as it sends them. ``folder``: the app's, whose
    lines the reason of a failure names.

    Raises:
        RunFailed: the app raised, or the run cannot go on.
    """
    try:
        if uses_server_fn(app):
            return run_server_fn(app, grid, context, loop)
        own, results = OwnRounds(loop, grid.phases), list[Result]()
        with (
            contextlib.suppress(EndedEarlyError),
            round_loop(IoTGrid, loop),
            own_starts(results.append),
            grid.seen_by(own.add),
        ):
            _call(app, grid, context)
            grid.settle()
            own.finish()
        loop.compare()
    except (RunFailed, ClientError, BotoCoreError):
        raise
    except Exception as error:  # the app's own code: its failure is the run's reason
        logger.exception("server-app-failed")
        lines = app_lines(error, folder) if folder is not None else []
        where = f" at {lines[0]}" if lines else ""
        raise RunFailed(
            "server-app", f"The app's ServerApp raised {type(error).__name__}{where}: {error}"
        ) from error
    if loop.started:
        return loop.finished
    result = results[-1] if results else Result()
    result.arrays = own.model(result.arrays, context.state) or ArrayRecord()
    return FinishedRounds(result, loop.starts.last_round)


def _call(app: ServerApp, grid: IoTGrid, context: Context) -> None:
    """Run the app; ``sys.exit()`` ends it, and not the server."""
    try:
        app(grid, context)
    except SystemExit as end:
        if end.code:
            raise RunFailed(
                "server-app", f"The app's ServerApp ended itself with the code {end.code!r}."
            ) from end
