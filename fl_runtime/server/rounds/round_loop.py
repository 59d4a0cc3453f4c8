"""The round loop: Flower's ``Strategy.start``, and what a fleet needs besides.

Besides: cohorts fold where the result is exactly the same, dtypes are kept, rounds have a quorum,
over-selection and requirements, devices that keep failing are excluded, stopping criteria end the
run early, and every finished round is recorded before the next one begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from edge.logs import event
from fl_runtime.run.cost import Topology
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.messages import array_specs
from fl_runtime.run.ports import Clock, Sleep
from fl_runtime.run.records import RoundRecord, summarize
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.model.objective import Objective
from fl_runtime.server.rounds.array_records import to_arrays, to_record, with_dtypes
from fl_runtime.server.rounds.availability import Availability
from fl_runtime.server.rounds.champion import ChampionComparison
from fl_runtime.server.rounds.checkpoints import Checkpoint, restore, take
from fl_runtime.server.rounds.device_history import DeviceHistory
from fl_runtime.server.rounds.evaluate_step import evaluate
from fl_runtime.server.rounds.quorum import Quorum
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.rounds.strategies import adjust, build, foldable
from fl_runtime.server.rounds.train_step import RoundInput, TrainStep

logger = logging.getLogger(__name__)

RecordRound = Callable[[RoundRecord, Checkpoint | None], None]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class Resumed:
    """Where an earlier server of the same run got to."""

    checkpoint: Checkpoint
    rounds: list[RoundRecord]


@dataclass(frozen=True)
class FinishedRounds:
    """What the server makes the run's model of."""

    result: Result
    final_round: int
    """The round whose model is the run's; 0 when no round was run."""


class RoundLoop:
    """Runs the rounds of one run in the place of Flower's ``Strategy.start``."""

    def __init__(
        self,
        spec: RunSpec,
        record: RecordRound,
        stopped: Callable[[], bool],
        resume: Callable[[], Resumed | None] = lambda: None,
        *,
        stopping: StoppingCriteria | None = None,
        eligible: Callable[[], set[str]] | None = None,
        comparison: ChampionComparison | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.spec = spec
        self.record = record
        self.stopped = stopped
        self.stopping = stopping or StoppingCriteria(
            spec, Topology(proxies=0), Objective(spec.metric, spec.goal)
        )
        self._result = Result()
        self._final_round = 0
        self._resume = resume
        self._comparison = comparison
        self._last: RoundRecord | None = None
        self._history = DeviceHistory()
        self._availability = Availability(
            spec=spec,
            history=self._history,
            eligible=eligible,
            stopped=stopped,
            clock=clock,
            sleep=sleep,
        )

    @property
    def finished(self) -> FinishedRounds:
        """The result so far, and the round whose model it holds."""
        return FinishedRounds(self._result, self._final_round)

    def __call__(
        self,
        strategy: Strategy,
        grid: IoTGrid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """The same arguments and result as ``flwr.serverapp.strategy.Strategy.start``."""
        phases, self._result = grid.phases, Result()
        strategy = _strategy_of(self.spec, strategy, len(phases.members))
        Quorum(self.spec, strategy).check_reachable(len(phases.members))
        policy = _policy_of(strategy, grid)
        train = TrainStep(strategy, grid, policy, self._availability)
        train_config = train_config or ConfigRecord()
        evaluate_config = evaluate_config or ConfigRecord()
        central = evaluate_fn or _no_evaluation
        specs = array_specs(to_arrays(initial_arrays))
        first, arrays = self._begin(strategy, grid, initial_arrays)
        if first == 1:  # a resumed run has evaluated its initial weights before
            _put(self._result.evaluate_metrics_serverapp, 0, central(0, arrays))
        phases.take_stats()  # what the app sent before belongs to no round
        for number in range(first, num_rounds + 1):
            if self._ended_early():
                break
            given = RoundInput(number=number, arrays=arrays, config=train_config, timeout=timeout)
            trained, aggregated, metrics = train.run(given)
            _put(self._result.train_metrics_clientapp, number, metrics)
            if aggregated is not None:
                arrays = self._result.arrays = with_dtypes(aggregated, specs)
            given = RoundInput(
                number=number, arrays=arrays, config=evaluate_config, timeout=timeout
            )
            metrics = evaluate(strategy, grid, trained, given)
            _put(self._result.evaluate_metrics_clientapp, number, metrics)
            _put(self._result.evaluate_metrics_serverapp, number, central(number, arrays))
            self._finish_round(grid, number, arrays, strategy)
            if self.stopped():
                raise RunFailed("stopped", f"The run was stopped after round {number}.")
        self._keep_best(grid)
        self._compare(strategy, grid.under(policy), evaluate_config, timeout)
        return self._result

    def _begin(
        self, strategy: Strategy, grid: IoTGrid, initial: ArrayRecord
    ) -> tuple[int, ArrayRecord]:
        """The first round to run, and the weights that it starts from."""
        resumed = self._resume()
        if resumed is None:
            return 1, initial
        checkpoint, result = resumed.checkpoint, self._result
        restore(checkpoint, to_arrays(initial), strategy)
        grid.phases.resume_at(checkpoint.sequence)
        result.arrays = to_record(checkpoint.arrays)
        for record in resumed.rounds:
            self._remember(record)
            _put_plain(result.train_metrics_clientapp, record.round, record.train)
            _put_plain(result.evaluate_metrics_clientapp, record.round, record.evaluate)
            _put_plain(result.evaluate_metrics_serverapp, record.round, record.server)
        # The best round's model may be needed at the end, and the other run's objects expire.
        if self.spec.resume_from and self.stopping.best is not None:
            grid.phases.weights.adopt(self.stopping.best.model, self.spec.resume_from)
        event(logger, "resumed", run=self.spec.run, finished_round=checkpoint.round)
        return checkpoint.round + 1, result.arrays

    def _ended_early(self) -> bool:
        if self.stopping.reason:
            event(logger, "ended-early", run=self.spec.run, reason=self.stopping.reason)
        return bool(self.stopping.reason)

    def _finish_round(
        self, grid: IoTGrid, number: int, arrays: ArrayRecord, strategy: Strategy
    ) -> None:
        weights, result = to_arrays(arrays), self._result
        record = summarize(
            number,
            grid.phases.take_stats(),
            train=_plain(result.train_metrics_clientapp.get(number)),
            evaluate=_plain(result.evaluate_metrics_clientapp.get(number)),
            server=_plain(result.evaluate_metrics_serverapp.get(number)),
            model=grid.phases.weights.save(weights),
        )
        before = self._last
        self.record(record, take(number, grid.phases.sequence, weights, strategy))
        self._remember(record)
        # Devices that are late in this round may still fetch the weights that it began with.
        needed = (record, before, self.stopping.best)
        grid.phases.weights.keep_only({kept.model for kept in needed if kept is not None})

    def _remember(self, record: RoundRecord) -> None:
        """Update what later rounds depend on, from records alone: a resumed run knows the same."""
        self._history.add(record)
        self.stopping.add(record)
        self._final_round, self._last = record.round, record

    def _keep_best(self, grid: IoTGrid) -> None:
        """Where a budget ended the run, return to the best round's model."""
        best = self.stopping.best
        if best is None or not self.stopping.keep_best or best.round == self._final_round:
            return
        try:
            weights = grid.phases.weights.load(best.model)
        except ObjectMissing as error:
            # Rounds' models are kept for a month: the run was resumed later than that.
            event(
                logger,
                "best-model-gone",
                logging.WARNING,
                run=self.spec.run,
                round=best.round,
                reason=str(error),
            )
            return
        self._result.arrays = to_record(weights)
        self._final_round = best.round

    def _compare(
        self, strategy: Strategy, grid: IoTGrid, config: ConfigRecord, timeout: float
    ) -> None:
        """Evaluate the fleet's champion on the devices that evaluated the final model."""
        # After _keep_best the model is the best round's, else the last one's.
        best, arrays = self.stopping.best, self._result.arrays
        final = best if best is not None and best.round == self._final_round else self._last
        if self._comparison is not None and final is not None and arrays:
            self._comparison.run(strategy, grid, final, arrays, config, timeout)
            grid.phases.take_stats()


def _strategy_of(spec: RunSpec, strategy: Strategy, devices: int) -> Strategy:
    """The run's strategy replaces the app's; parameters alone change the app's."""
    if spec.strategy:
        return build(spec.strategy, spec.strategy_params, devices, like=strategy)
    adjust(strategy, spec.strategy_params)
    return strategy


def _no_evaluation(number: int, arrays: ArrayRecord) -> None:  # noqa: ARG001  # an EvaluateFn
    return None


def _policy_of(strategy: Strategy, grid: IoTGrid) -> PhasePolicy:
    """What a strategy allows. FedXgb's updates are trees: they have no layout to check."""
    return PhasePolicy(
        available=grid.phases.members,
        fold_by=strategy.weighted_by_key if foldable(strategy) else None,
        checked=not type(strategy).__name__.startswith("FedXgb"),
    )


def _put(history: dict[int, MetricRecord], number: int, metrics: MetricRecord | None) -> None:
    if metrics is not None:
        history[number] = metrics


def _put_plain(history: dict[int, MetricRecord], number: int, metrics: dict[str, Any]) -> None:
    # JSON has no infinity: what overflowed was written as null.
    known = {name: value for name, value in metrics.items() if value is not None}
    if known:
        history[number] = MetricRecord(known)


def _plain(metrics: MetricRecord | None) -> dict[str, Any]:
    return dict(metrics) if metrics is not None else {}
