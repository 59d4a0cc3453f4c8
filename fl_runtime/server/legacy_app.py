"""Apps of Flower's older ``server_fn`` interface: their own strategy and server, our records.

Such a strategy speaks to one client at a time through Flower's compatibility layer, so nothing is
folded, and a round's phases are many messages under way at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.common import parameters_to_ndarrays
from flwr.server.strategy import FedAvg, Strategy
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Result

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import PhaseStats, summarize
from fl_runtime.server.flower_compat import server_components, start_compatible
from fl_runtime.server.rounds.grid import IoTGrid
from fl_runtime.server.rounds.round_loop import RecordRound, RoundLoop
from fl_runtime.server.rounds.stopping import Ending


class _Ended(Exception):
    """No further round is to be run: leaves Flower's own loop."""


class RecordingStrategy(Strategy):  # type: ignore[misc]  # flwr is untyped here
    """The app's strategy, with each round written down and the last parameters kept."""

    def __init__(
        self,
        inner: Strategy,
        grid: IoTGrid,
        record: RecordRound,
        stopped: Callable[[], bool],
        ending: Ending,
    ) -> None:
        self._ending = ending
        self._inner = inner
        self._grid = grid
        self._record = record
        self._stopped = stopped
        self._train: dict[str, Any] = {}
        self._evaluate: dict[str, Any] = {}
        self._central: dict[str, Any] = {}
        self._round = 0
        self.result = Result()
        self.finished = 0

    def initialize_parameters(self, client_manager: Any) -> Any:
        """The app's own."""
        return self._inner.initialize_parameters(client_manager)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """A new round begins: the one before is over."""
        self.finish_round()
        self._round = server_round
        return self._inner.configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keeps the aggregated parameters; a round in which no device succeeded ends the run with a
        reason.
        """
        if failures and not results:
            first = next(
                (r for s in self._grid.stats for r in s.results if r.status == "error"), None
            )
            reason = f"{first.device}: {first.reason}" if first else str(failures[0])
            raise RunFailed(
                first.code if first else "failures",
                f"No device gave a valid update in round {server_round}; {reason}",
            )
        parameters, metrics = self._inner.aggregate_fit(server_round, results, failures)
        if parameters is not None:
            arrays = parameters_to_ndarrays(parameters)
            self.result.arrays = ArrayRecord(
                {str(index): Array(array) for index, array in enumerate(arrays)}
            )
        self._train = dict(metrics)
        return parameters, metrics

    def configure_evaluate(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """The app's own."""
        return self._inner.configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keeps the loss and the metrics."""
        loss, metrics = self._inner.aggregate_evaluate(server_round, results, failures)
        self._evaluate = {**({} if loss is None else {"loss": float(loss)}), **_numbers(metrics)}
        return loss, metrics

    def evaluate(self, server_round: int, parameters: Any) -> Any:
        """Central evaluation, kept for rounds after the first parameters."""
        found = self._inner.evaluate(server_round, parameters)
        if found is not None and server_round:
            self._central = {"loss": float(found[0]), **_numbers(found[1])}
        return found

    def finish_round(self) -> None:
        """Write the round down, once."""
        if not self._round:
            self._grid.stats.clear()
            return
        stats = _as_phases(self._grid.stats)
        self._grid.stats.clear()
        number, self._round = self._round, 0
        if self._evaluate:
            self.result.evaluate_metrics_clientapp[number] = MetricRecord(self._evaluate)
        if self._central:
            self.result.evaluate_metrics_serverapp[number] = MetricRecord(self._central)
        record = summarize(
            number,
            stats,
            train=_numbers(self._train),
            evaluate=self._evaluate,
            server=self._central,
        )
        self._record(record, stats, None)
        self._ending.take(record)
        self.finished = number
        self._train, self._evaluate, self._central = {}, {}, {}
        if self._stopped():
            raise RunFailed("stopped", f"The run was stopped after round {number}.")
        if self._ending.reason:
            raise _Ended


def run_server_fn(
    app: ServerApp, grid: IoTGrid, context: Context, loop: RoundLoop, stopped: Callable[[], bool]
) -> None:
    """Run the app for the run's number of rounds; raises RunFailed for what only newer apps can do."""
    spec = loop.spec
    newer = {
        "--strategy and --set strategy.*": spec.strategy or spec.strategy_params,
        "--resume": spec.resume_from,
        "--selection": spec.selection,
        "--quorum": spec.quorum > 1 or spec.quorum_fraction,
    }
    for option, asked in newer.items():
        if asked:
            raise RunFailed(
                "server-fn",
                f"The app's server_fn brings its own strategy and rounds: {option} needs an app with @app.main().",
            )
    components = server_components(app, context)
    strategy = RecordingStrategy(
        components.strategy or FedAvg(), grid, loop.record, stopped, loop.ending
    )
    with contextlib.suppress(_Ended):
        start_compatible(components, strategy, spec.num_rounds, grid)
        strategy.finish_round()
    loop.result, loop.final_round = strategy.result, strategy.finished


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def _as_phases(stats: list[PhaseStats]) -> list[PhaseStats]:
    """One message each, sent at once: together they are a phase, as long as the longest."""
    merged: dict[str, PhaseStats] = {}
    for part in stats:
        whole = merged.setdefault(part.kind, PhaseStats(part.phase, part.kind, part.server_round))
        whole.seconds = max(whole.seconds, part.seconds)
        whole.results.extend(part.results)
    return list(merged.values())
