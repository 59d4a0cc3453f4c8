"""A background queue of calls to a service that may be away for a while."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

from edge.logs import event
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.ports import Clock, Sleep

logger = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 15.0)
"""First and longest pause between two attempts; the pause doubles."""
PATIENCE_SECONDS = 600.0
"""How long :meth:`RetryQueue.flush` waits for MLflow to come back."""
WAY_OUT = "the rounds are kept, and `mledgeops run --resume` ends the run"
REASON_LIMIT = 90
"""Characters of MLflow's own words: the way out has to fit behind them."""

Result = TypeVar("Result")


class RetryQueue:
    """Runs calls in the background in the order of submission, each until it succeeds.

    A call may therefore run more than once, and must be idempotent. A ``RunFailed`` is the app's
    own fault: it is not retried, and :meth:`flush` raises it. Nor is a call to a damaged database:
    waiting does not mend it.
    """

    def __init__(self, *, sleep: Sleep, clock: Clock, executor: Executor) -> None:
        self._sleep = sleep
        self._clock = clock
        # It makes one call after the other: MLflow sees them in the order of the rounds.
        self._executor = executor
        self._pending: list[Future[object]] = []
        self._give_up_at = math.inf

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Queue a call and return at once."""
        future = self._executor.submit(self._until_done, call)
        self._pending.append(future)  # type: ignore[arg-type]  # only waited for
        return future

    def flush(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for all calls.

        Raises:
            RunFailed: MLflow has refused a call for ``seconds``, or a call failed for good.
        """
        self._give_up_at = self._clock() + seconds
        for future in self._pending:
            future.result()
        self._pending.clear()

    def _until_done(self, call: Callable[[], Result]) -> Result:
        pause = RETRY_SECONDS[0]
        while True:
            try:
                return call()
            except RunFailed:
                raise
            # MLflow's stores raise the errors of their backends: SQL, HTTP, S3.
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                said = reason.splitlines()[0][:REASON_LIMIT]
                if is_damage(error):
                    text = f"MLflow's database is damaged ({said}); {WAY_OUT} once it is whole."
                    raise RunFailed("mlflow", text) from error
                if self._clock() > self._give_up_at:
                    text = f"MLflow takes nothing from the run ({said}); {WAY_OUT} once it does."
                    raise RunFailed("mlflow", text) from error
                waiting = len(self._pending)
                event(logger, "mlflow-waits", logging.WARNING, waiting=waiting, reason=reason[:300])
                self._sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of MLflow says that its SQLite file is damaged.

    A file that is locked or cannot be opened is an ``OperationalError``, which passes. SQLAlchemy
    keeps the driver's error as ``orig``: https://docs.sqlalchemy.org/en/20/core/exceptions.html
    """
    while error is not None:
        if sqlite3.DatabaseError in (type(error), type(getattr(error, "orig", None))):
            return True
        error = error.__cause__ or error.__context__
    return False
