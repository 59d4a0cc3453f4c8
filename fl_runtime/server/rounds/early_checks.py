"""Ends a run after its first round where no later round could give its model a value either.

Otherwise a misspelt metric, or a client without an evaluate function, would show after the last
round only.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import Any

from edge.logs import event
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import DeviceRow, RoundRecord, reported_metrics
from fl_runtime.server.rounds.quorum import TRANSIENT

logger = logging.getLogger(__name__)

EXAMPLES = "num-examples"


class EarlyChecks:
    """Holds finished rounds against the metric that judges the run's model."""

    def __init__(self, metric: str, *, starts_again: Callable[[], bool] = lambda: False) -> None:
        """``metric``: the one that the run or the app names; empty: any is taken.

        ``starts_again``: whether the app calls ``start`` several times: a later call may report the
        metric. Asked only when it is missing.
        """
        self._metric = metric
        self._starts_again = starts_again
        self._seen = not metric

    def add(self, record: RoundRecord) -> None:
        """Add a finished round, also one of an earlier server."""
        self._seen = self._seen or bool(reported_metrics(record, self._metric))

    def check(self, record: RoundRecord, strategy: Any, *, central: bool) -> None:
        """Check the round that was added last.

        ``central``: whether the app may evaluate on the server.

        Raises:
            RunFailed: everything that reports metrics has reported, and not the run's metric.
        """
        rows = [row for row in record.devices if row.kind.startswith("evaluate")]
        failed = [row for row in rows if row.status == "error"]
        unable = bool(failed) and not any(row.status == "ok" for row in rows)
        unable = unable and not any(row.code in TRANSIENT for row in failed)
        if unable and not record.evaluate:
            event(
                logger,
                "not-evaluated",
                logging.WARNING,
                round=record.round,
                device=failed[0].device,
                code=failed[0].code,
                reason=failed[0].reason,
            )
        # Without any metric at all the model is registered as not judged.
        never = not rows and getattr(strategy, "fraction_evaluate", None) == 0 and _names(record)
        devices_told = record.evaluate or unable or never
        if self._seen or not devices_told or (central and not record.server):
            return
        if not self._starts_again():
            raise _missing(self._metric, record, failed if unable else [])


def _missing(metric: str, record: RoundRecord, failed: list[DeviceRow]) -> RunFailed:
    names = _names(record)
    near = difflib.get_close_matches(metric, names, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    if failed and not near:
        row = failed[0]
        return RunFailed(
            "metric-missing",
            f"The devices report no metric {metric!r}: none could evaluate the model in round "
            f"{record.round}; {row.device}: {row.reason}",
        )
    return RunFailed(
        "metric-missing",
        f"The devices report no metric {metric!r} in round {record.round}; they report "
        f"{', '.join(names) or 'none'}.{meant}",
    )


def _names(record: RoundRecord) -> list[str]:
    return sorted({*record.evaluate, *record.server, *record.train} - {EXAMPLES})
