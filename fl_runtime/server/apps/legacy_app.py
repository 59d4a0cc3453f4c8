"""Apps of Flower's older ``server_fn`` interface: their own strategy and server, our records.

Such a strategy sends each client its own message through Flower's compatibility layer, so nothing
is folded. Messages that are sent at the same time are one phase.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.common import parameters_to_ndarrays
from flwr.server.strategy import FedAvg, Strategy
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Result

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.messages import DeviceResult
from fl_runtime.run.records import PhaseStats, RoundRecord, plain, summarize
from fl_runtime.server.apps.own_rounds import EndedEarlyError, check_options
from fl_runtime.server.grid.combining import CombiningGrid
from fl_runtime.server.grid.flower_compat import server_components, start_compatible
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.checkpoints import Checkpoint
from fl_runtime.server.rounds.round_loop import FinishedRounds, RecordRound, RoundLoop
from fl_runtime.server.rounds.stopping import StoppingCriteria


class LegacyRounds:
    """Records the rounds of a strategy that runs in Flower's own loop."""

    def __init__(
        self,
        phases: PhaseExecutor,
        record: RecordRound,
        stopped: Callable[[], bool],
        stopping: StoppingCriteria,
    ) -> None:
        self._phases = phases
        self._record = record
        self._stopped = stopped
        self._stopping = stopping
        self._round = 0
        self.train: dict[str, Any] = {}
        self.evaluate: dict[str, Any] = {}
        self.evaluated: list[DeviceResult] = []
        """What each device reported of its evaluation, for decisions."""
        self.central: dict[str, Any] = {}
        self.result = Result()
        self.finished = 0
        """The last finished round."""

    def begin(self, number: int) -> None:
        """A round begins: the one before is over."""
        self.finish()  # Flower tells a strategy of a round's beginning only
        self._round = number

    def keep_evaluations(self, results: Sequence[tuple[Any, Any]]) -> None:
        """Keep the devices' evaluations: pairs of Flower's ``ClientProxy`` and ``EvaluateRes``."""
        self.evaluated = [
            DeviceResult(
                device=self._phases.device(client.node_id),
                node_id=client.node_id,
                message_id="",
                status="ok",
                metrics={"loss": float(told.loss), **_numbers(told.metrics)},
                examples=float(told.num_examples),
            )
            for client, told in results
        ]

    def failure(self, number: int, otherwise: str) -> RunFailed:
        """Why no device gave a valid update, or ``otherwise`` when no device said."""
        results = (result for phase in self._phases.stats for result in phase.results)
        first = next((result for result in results if result.status == "error"), None)
        reason = f"{first.device}: {first.reason}" if first else otherwise
        return RunFailed(
            first.code if first else "failures",
            f"No device gave a valid update in round {number}; {reason}",
        )

    def finish(self) -> None:
        """Record the current round, once; leaves Flower's loop when it was the last."""
        stats = self._phases.take_stats()
        if not self._round:
            return
        number, self._round = self._round, 0
        if self.evaluate:
            self.result.evaluate_metrics_clientapp[number] = MetricRecord(self.evaluate)
        if self.central:
            self.result.evaluate_metrics_serverapp[number] = MetricRecord(self.central)
        record = summarize(
            number,
            _merged(stats),
            train=_numbers(self.train),
            evaluate=self.evaluate,
            server=self.central,
            # In this interface a reply's records are Flower's own, not the app's metrics.
            evaluated=self.evaluated,
        )
        self._record(record, None)
        self._stopping.add(record)
        self.finished = number
        self.train, self.evaluate, self.central, self.evaluated = {}, {}, {}, []
        if self._stopped():
            raise RunFailed("stopped", f"The run was stopped after round {number}.")
        if self._stopping.reason:
            raise EndedEarlyError


class RecordingStrategy(Strategy):  # type: ignore[misc]  # flwr is untyped here
    """The app's strategy, observed by a LegacyRounds."""

    def __init__(self, inner: Strategy, recorder: LegacyRounds) -> None:
        self._inner = inner
        self._recorder = recorder

    def initialize_parameters(self, client_manager: Any) -> Any:
        """The app's own."""
        return self._inner.initialize_parameters(client_manager)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """The app's own; a new round begins."""
        self._recorder.begin(server_round)
        return self._inner.configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keeps the aggregated parameters; raises RunFailed when no device succeeded."""
        if failures and not results:
            raise self._recorder.failure(server_round, str(failures[0]))
        parameters, metrics = self._inner.aggregate_fit(server_round, results, failures)
        if parameters is not None:
            arrays = enumerate(parameters_to_ndarrays(parameters))
            # The older interface has no array names: they are numbered.
            self._recorder.result.arrays = ArrayRecord(
                {str(index): Array(array) for index, array in arrays}
            )
        self._recorder.train = dict(metrics)
        return parameters, metrics

    def configure_evaluate(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """The app's own."""
        return self._inner.configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keeps the loss and the metrics, of each device as well."""
        loss, metrics = self._inner.aggregate_evaluate(server_round, results, failures)
        known = {} if loss is None else {"loss": float(loss)}
        self._recorder.evaluate = {**known, **_numbers(metrics)}
        self._recorder.keep_evaluations(results)
        return loss, metrics

    def evaluate(self, server_round: int, parameters: Any) -> Any:
        """Central evaluation; that of the initial parameters (round 0) is not kept."""
        found = self._inner.evaluate(server_round, parameters)
        if found is not None and server_round:
            self._recorder.central = {"loss": float(found[0]), **_numbers(found[1])}
        return found


def run_server_fn(
    app: ServerApp, grid: IoTGrid, context: Context, loop: RoundLoop
) -> FinishedRounds:
    """Run the app to its end; raises RunFailed for options it cannot have."""
    check_options(loop.spec, "server-fn", "The app's server_fn brings its own strategy and rounds")
    components = server_components(app, context)
    inner = components.strategy or FedAvg()
    loop.announce(1, inner)
    # A strategy of the app's own may evaluate on the server by other means.
    central = getattr(inner, "evaluate_fn", inner) is not None

    def record(done: RoundRecord, checkpoint: Checkpoint | None) -> None:
        loop.record(done, checkpoint)
        loop.early.add(done)
        loop.early.check(done, inner, central=central)

    recorder = LegacyRounds(grid.phases, record, loop.stopped, loop.stopping)
    strategy = RecordingStrategy(inner, recorder)
    with contextlib.suppress(EndedEarlyError):
        start_compatible(components, strategy, CombiningGrid(grid))
        recorder.finish()
    return FinishedRounds(recorder.result, recorder.finished)


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain(metrics).items() if isinstance(value, int | float)}


def _merged(stats: list[PhaseStats]) -> list[PhaseStats]:
    """One phase of each kind: its messages were sent concurrently, so it took as long as the
    longest.
    """
    merged: dict[str, PhaseStats] = {}
    for part in stats:
        whole = merged.setdefault(part.kind, PhaseStats(part.phase, part.kind, part.server_round))
        whole.seconds = max(whole.seconds, part.seconds)
        whole.results.extend(part.results)
    return list(merged.values())
