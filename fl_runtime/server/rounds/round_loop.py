"""The round loop: Flower's ``Strategy.start``, and what a fleet needs besides.

Besides: cohorts fold where the result is exactly the same, dtypes are kept, rounds have a quorum,
over-selection and requirements, devices that keep failing are excluded, stopping criteria end the
run early, and every finished round is recorded before the next one begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Result, Strategy
from msgspec import structs

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
from fl_runtime.server.rounds.early_checks import EarlyChecks
from fl_runtime.server.rounds.evaluate_step import evaluate
from fl_runtime.server.rounds.quorum import Quorum
from fl_runtime.server.rounds.starts import Resumed, Start, Starts
from fl_runtime.server.rounds.stopping import StoppingCriteria
from fl_runtime.server.rounds.strategies import (
    adjust,
    aggregates_itself,
    averages_own_metrics,
    build,
    foldable,
)
from fl_runtime.server.rounds.train_step import RoundInput, TrainStep

logger = logging.getLogger(__name__)

KINDS = ("train", "evaluate")
KEPT_MODELS = 2
"""Last rounds whose models are kept, beside the best one's."""
RecordRound = Callable[[RoundRecord, Checkpoint | None], None]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class FinishedRounds:
    """What the server makes the run's model of."""

    result: Result
    """Its arrays are empty when the app sent no model."""
    final_round: int
    """The run's round whose model it is; 0 when no round was run."""


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The arguments of one call of ``Strategy.start``."""

    initial: ArrayRecord
    num_rounds: int
    timeout: float
    train: ConfigRecord
    evaluate: ConfigRecord
    central: EvaluateFn


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
        early: EarlyChecks | None = None,
        announce: Callable[[int, Any], None] = lambda *_: None,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.spec = spec
        self.record = record
        self.stopped = stopped
        self.stopping = stopping or StoppingCriteria(
            spec, Topology(proxies=0), Objective(spec.metric, spec.goal)
        )
        self.early = early or EarlyChecks(spec.metric)
        self.announce = announce
        """Called with the number of each ``start`` and its strategy."""
        self.starts = Starts(resume)
        self.kept: set[str] = set()
        """Models of calls that are over: a server that takes the run over needs them."""
        self._comparison = comparison
        self._current: _StartedRounds | None = None
        self._availability = partial(
            Availability, spec=spec, eligible=eligible, stopped=stopped, clock=clock, sleep=sleep
        )

    @property
    def started(self) -> bool:
        """Whether the app has called ``Strategy.start``."""
        return self._current is not None

    @property
    def finished(self) -> FinishedRounds:
        """What the last call has given so far, and the round whose model it holds."""
        current = self._current
        if current is None:
            return FinishedRounds(Result(), 0)
        return FinishedRounds(current.final_result(), current.final_round)

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
        given = _Given(
            initial=initial_arrays,
            num_rounds=num_rounds,
            timeout=timeout,
            train=train_config or ConfigRecord(),
            evaluate=evaluate_config or ConfigRecord(),
            central=evaluate_fn or _no_evaluation,
        )
        strategy = _strategy_of(self.spec, strategy, len(grid.phases.members))
        Quorum(self.spec, strategy).check_reachable(len(grid.phases.members))
        if self._current is not None:
            self.kept |= self._current.models
        start, history = self.starts.begin(), DeviceHistory()
        self.stopping.begin_start()
        self.announce(start.number, strategy)
        self._current = _StartedRounds(
            self, start, strategy, grid, given, self._availability(history=history)
        )
        return self._current.run()

    def compare(self) -> None:
        """Evaluate the fleet's champion on the devices that evaluated the final model.

        Called once, when the app has ended.
        """
        if self._comparison is not None and self._current is not None:
            self._current.compare(self._comparison)


class _StartedRounds:
    """The rounds of one call of ``Strategy.start``, numbered as the strategy numbers them."""

    def __init__(
        self,
        loop: RoundLoop,
        start: Start,
        strategy: Strategy,
        grid: IoTGrid,
        given: _Given,
        availability: Availability,
    ) -> None:
        self._loop = loop
        self._start = start
        self._strategy = strategy
        self._grid = grid
        self._given = given
        self._history = availability.history
        self._policy = _policy_of(strategy, grid, loop.spec.checks)
        if self._policy.any_shape:
            event(
                logger,
                "replies-not-held-against-the-model",
                logging.WARNING,
                run=loop.spec.run,
                strategy=type(strategy).__name__,
                kinds=sorted(self._policy.any_shape),
            )
        self._train = TrainStep(strategy, grid, self._policy, availability)
        self._specs = array_specs(to_arrays(given.initial))
        self._arrays = given.initial
        self._last: RoundRecord | None = None
        self._result = Result()
        self.final_round = 0
        """The run's round whose model is the call's; 0 when no round was run."""

    @property
    def models(self) -> set[str]:
        """Names of the models that the call's result needs."""
        return {self._last.model} if self._last is not None else set()

    def final_result(self) -> Result:
        """The result; its model is the one that was sent where the strategy aggregated none."""
        if not self._result.arrays and self._last is not None:
            self._result.arrays = self._arrays
        return self._result

    def run(self) -> Result:
        """Run the rounds that no earlier server has run."""
        given, result, phases = self._given, self._result, self._grid.phases
        first = self._begin()
        if self._start.over:
            return result
        if first == 1:  # a resumed call has evaluated its initial weights before
            _put(result.evaluate_metrics_serverapp, 0, given.central(0, self._arrays))
        phases.take_stats()  # what the app sent before belongs to no round
        for number in range(first, given.num_rounds + 1):
            if self._ended_early():
                break
            self._run_round(number)
            self._finish_round(number)
            if self._loop.stopped():
                raise RunFailed("stopped", f"The run was stopped after round {number}.")
        self._keep_best()
        return result

    def compare(self, comparison: ChampionComparison) -> None:
        """See :meth:`RoundLoop.compare`."""
        # After _keep_best the model is the best round's, else the last one's.
        best, arrays = self._loop.stopping.best, self.final_result().arrays
        final = best if best is not None and best.round == self.final_round else self._last
        if final is not None and arrays:
            grid = self._grid.under(self._policy)
            given = self._given
            comparison.run(self._strategy, grid, final, arrays, given.evaluate, given.timeout)
            grid.phases.take_stats()

    def _run_round(self, number: int) -> None:
        given, result = self._given, self._result
        asked = RoundInput(
            number=number, arrays=self._arrays, config=given.train, timeout=given.timeout
        )
        policy, aggregated, metrics = self._train.run(asked)
        _put(result.train_metrics_clientapp, number, metrics)
        if aggregated is not None:
            self._arrays = result.arrays = with_dtypes(aggregated, self._specs)
        asked = replace(asked, arrays=self._arrays, config=given.evaluate)
        metrics = evaluate(self._strategy, self._grid, policy, asked)
        _put(result.evaluate_metrics_clientapp, number, metrics)
        _put(result.evaluate_metrics_serverapp, number, given.central(number, self._arrays))

    def _begin(self) -> int:
        """The first round to run; restores what an earlier server has run."""
        start, result, phases = self._start, self._result, self._grid.phases
        for record in start.rounds:
            self._remember(record)
            number = record.round - start.offset
            _put_plain(result.train_metrics_clientapp, number, record.train)
            _put_plain(result.evaluate_metrics_clientapp, number, record.evaluate)
            _put_plain(result.evaluate_metrics_serverapp, number, record.server)
        spec, best = self._loop.spec, self._loop.stopping.best
        if start.over:
            if spec.resume_from:  # its models are in the other run's place
                phases.weights.adopt(start.rounds[-1].model, spec.resume_from)
            self._arrays = result.arrays = to_record(phases.weights.load(start.rounds[-1].model))
        if start.checkpoint is None:
            return len(start.rounds) + 1
        # A strategy that aggregates any shape may have changed the model's layout.
        initial = None if self._policy.any_shape else to_arrays(self._given.initial)
        restore(start.checkpoint, initial, self._strategy)
        phases.resume_at(start.checkpoint.sequence)
        self._arrays = result.arrays = to_record(start.checkpoint.arrays)
        # The best round's model may be needed at the end, and the other run's objects expire.
        if spec.resume_from and best is not None:
            phases.weights.adopt(best.model, spec.resume_from)
        if not spec.resume_from:
            # What the server before has kept is superseded like our own.
            left = [*start.rounds[-KEPT_MODELS:], *([best] if best is not None else [])]
            phases.weights.take_over(record.model for record in left)
        event(logger, "resumed", run=spec.run, finished_round=start.checkpoint.round)
        return start.checkpoint.round - start.offset + 1

    def _ended_early(self) -> bool:
        reason = self._loop.stopping.reason
        if reason:
            event(logger, "ended-early", run=self._loop.spec.run, reason=reason)
        return bool(reason)

    def _finish_round(self, number: int) -> None:
        weights, result, phases = to_arrays(self._arrays), self._result, self._grid.phases
        record = summarize(
            self._start.offset + number,
            phases.take_stats(),
            train=_plain(result.train_metrics_clientapp.get(number)),
            evaluate=_plain(result.evaluate_metrics_clientapp.get(number)),
            server=_plain(result.evaluate_metrics_serverapp.get(number)),
            model=phases.weights.save(weights),
            start=self._start.number,
        )
        before, loop = self._last, self._loop
        loop.record(record, take(record.round, phases.sequence, weights, self._strategy))
        loop.starts.last_round = record.round
        self._remember(record)
        central = self._given.central is not _no_evaluation
        loop.early.check(record, self._strategy, central=central)
        # Devices that are late in this round may still fetch the weights that it began with.
        needed = (record, before, loop.stopping.best)
        names = {kept.model for kept in needed if kept is not None}
        phases.weights.keep_only(names | loop.kept)

    def _remember(self, record: RoundRecord) -> None:
        """Update what later rounds depend on, from records alone: a resumed run knows the same."""
        self._history.add(structs.replace(record, round=record.round - self._start.offset))
        self._loop.stopping.add(record)
        self._loop.early.add(record)
        self.final_round, self._last = record.round, record

    def _keep_best(self) -> None:
        """Where a budget ended the run, return to the best round's model."""
        best, keep = self._loop.stopping.best, self._loop.stopping.keep_best
        if best is None or not keep or best.round == self.final_round:
            return
        try:
            weights = self._grid.phases.weights.load(best.model)
        except ObjectMissing as error:
            # Rounds' models are kept for a month: the run was resumed later than that.
            event(
                logger,
                "best-model-gone",
                logging.WARNING,
                run=self._loop.spec.run,
                round=best.round,
                reason=str(error),
            )
            return
        self._arrays = self._result.arrays = to_record(weights)
        self.final_round = best.round


def _strategy_of(spec: RunSpec, strategy: Strategy, devices: int) -> Strategy:
    """The run's strategy replaces the app's; parameters alone change the app's."""
    if spec.strategy:
        return build(spec.strategy, spec.strategy_params, devices, like=strategy)
    adjust(strategy, spec.strategy_params)
    return strategy


def _no_evaluation(number: int, arrays: ArrayRecord) -> None:  # noqa: ARG001  # an EvaluateFn
    return None


def _policy_of(strategy: Strategy, grid: IoTGrid, checks: str) -> PhasePolicy:
    """What a strategy allows. Flower's own aggregation takes replies with the model's layout; an
    app's own may take any. FedXgb's updates are trees: they have no layout to check.
    """
    own = {kind for kind in KINDS if aggregates_itself(strategy, kind)}
    any_shape = frozenset({"strict": set(), "free": set(KINDS)}.get(checks, own))
    takes_any_metrics = "train" in any_shape or averages_own_metrics(strategy)
    return PhasePolicy(
        available=grid.phases.members,
        fold_by=strategy.weighted_by_key if foldable(strategy) and not any_shape else None,
        checked=not type(strategy).__name__.startswith("FedXgb"),
        any_shape=any_shape,
        any_metrics=frozenset({"train"} if takes_any_metrics and checks != "strict" else ()),
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
