"""The round loop: ``Strategy.start`` with the same meaning, and what a fleet needs besides.

Besides: cohort folding where it is exact, dtypes kept, a round without any valid update ends the
run with the reasons, and every finished round is recorded before the next begins.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from edge.logs import event
from edge.protocol.records import ArrayMap
from fl_runtime.aggregation import ArraySpec, array_specs, restore_dtypes
from fl_runtime.checkpoints import Checkpoint, restore, take
from fl_runtime.cohort import odd_metrics
from fl_runtime.errors import RunFailed
from fl_runtime.grid import Folding, IoTGrid
from fl_runtime.records import PhaseStats, RoundRecord, summarize
from fl_runtime.run_spec import RunSpec
from fl_runtime.strategies import adjust, build, foldable

logger = logging.getLogger(__name__)

RecordRound = Callable[[RoundRecord, list[PhaseStats], Checkpoint | None], None]
Resume = Callable[[], "Resumed | None"]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class Resumed:
    """Where an earlier server of the same run got to."""

    checkpoint: Checkpoint
    rounds: list[RoundRecord]


class RoundLoop:
    """Runs the rounds of one run. ``result`` holds the outcome for the server."""

    def __init__(self, spec: RunSpec, record: RecordRound, stopped: Callable[[], bool], resume: Resume = lambda: None) -> None:
        self._resume = resume
        self.spec = spec
        self.record = record
        self._stopped = stopped
        self.result: Result | None = None
        self.strategy_name = ""

    def __call__(
        self, strategy: Strategy, grid: IoTGrid, initial_arrays: ArrayRecord, num_rounds: int = 3, timeout: float = 3600,
        train_config: ConfigRecord | None = None, evaluate_config: ConfigRecord | None = None, evaluate_fn: EvaluateFn | None = None,
    ) -> Result:  # fmt: skip
        """The same arguments and result as ``flwr.serverapp.strategy.Strategy.start``."""
        strategy = self._chosen(strategy, grid)
        _demand_nodes(strategy, len(list(grid.get_node_ids())))
        grid.folding = Folding(weighted_by=strategy.weighted_by_key) if foldable(strategy) else None
        grid.checked = not type(strategy).__name__.startswith("FedXgb")
        self.result, self.strategy_name = Result(), type(strategy).__name__
        specs = _specs(initial_arrays)
        first, arrays = self._begin(strategy, grid, initial_arrays)
        if first == 1:
            self._evaluate_centrally(evaluate_fn, 0, arrays)
        grid.stats.clear()
        for number in range(first, self.spec.num_rounds + 1):
            arrays = self._train(strategy, grid, number, arrays, train_config or ConfigRecord(), timeout, specs)
            self._evaluate(strategy, grid, number, arrays, evaluate_config or ConfigRecord(), timeout)
            self._evaluate_centrally(evaluate_fn, number, arrays)
            self._finish_round(grid, number, take(number, grid.sequence, _ndarrays(arrays), strategy))
            if self._stopped():
                raise RunFailed("stopped", f"The run was stopped after round {number}.")
        grid.folding, grid.checked = None, False
        return self.result

    def _chosen(self, strategy: Strategy, grid: IoTGrid) -> Strategy:
        """The run's strategy replaces the app's; parameters alone change the app's."""
        if self.spec.strategy:
            return build(self.spec.strategy, self.spec.strategy_params, len(list(grid.get_node_ids())), like=strategy)
        adjust(strategy, self.spec.strategy_params)
        return strategy

    def _train(
        self, strategy: Strategy, grid: IoTGrid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout: float, specs: list[ArraySpec]
    ) -> ArrayRecord:
        messages = list(strategy.configure_train(number, arrays, config, grid))
        replies = agreeing(list(grid.send_and_receive(messages, timeout=timeout)), grid)
        if messages:
            _demand_results(replies, number, grid.stats[-1])
        aggregated, metrics = strategy.aggregate_train(number, replies)
        result = self._result()
        if metrics is not None:
            result.train_metrics_clientapp[number] = metrics
        if aggregated is None:
            return arrays
        result.arrays = _with_dtypes(aggregated, specs)
        return result.arrays

    def _evaluate(self, strategy: Strategy, grid: IoTGrid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout: float) -> None:
        messages = list(strategy.configure_evaluate(number, arrays, config, grid))
        if not messages:
            return
        metrics = strategy.aggregate_evaluate(number, agreeing(list(grid.send_and_receive(messages, timeout=timeout)), grid))
        if metrics is not None:
            self._result().evaluate_metrics_clientapp[number] = metrics

    def _evaluate_centrally(self, evaluate_fn: EvaluateFn | None, number: int, arrays: ArrayRecord) -> None:
        metrics = evaluate_fn(number, arrays) if evaluate_fn else None
        if metrics is not None:
            self._result().evaluate_metrics_serverapp[number] = metrics

    def _begin(self, strategy: Strategy, grid: IoTGrid, initial: ArrayRecord) -> tuple[int, ArrayRecord]:
        """The first round to run and the weights it starts from: those given, or where the run was left."""
        resumed = self._resume()
        if resumed is None:
            return 1, initial
        checkpoint, result = resumed.checkpoint, self._result()
        restore(checkpoint, _ndarrays(initial), strategy)
        grid.resume_at(checkpoint.sequence)
        result.arrays = ArrayRecord({key: Array(np.array(array)) for key, array in checkpoint.arrays.items()})
        for record in resumed.rounds:
            for metrics, history in (
                (record.train, result.train_metrics_clientapp), (record.evaluate, result.evaluate_metrics_clientapp),
                (record.server, result.evaluate_metrics_serverapp),
            ):  # fmt: skip
                if metrics:
                    history[record.round] = MetricRecord(metrics)
        event(logger, "resumed", run=self.spec.run, finished_round=checkpoint.round)
        return checkpoint.round + 1, result.arrays

    def _finish_round(self, grid: IoTGrid, number: int, checkpoint: Checkpoint) -> None:
        result, stats = self._result(), list(grid.stats)
        grid.stats.clear()
        record = summarize(
            number, stats, train=_plain(result.train_metrics_clientapp.get(number)),
            evaluate=_plain(result.evaluate_metrics_clientapp.get(number)), server=_plain(result.evaluate_metrics_serverapp.get(number)),
        )  # fmt: skip
        self.record(record, stats, checkpoint)

    def _result(self) -> Result:
        if self.result is None:
            raise RuntimeError("the round loop has not been started")
        return self.result


def _demand_nodes(strategy: Strategy, nodes: int) -> None:
    """Flower waits for ever when a strategy's minimum is above the nodes there are."""
    wanted = max(getattr(strategy, name, 0) for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"))
    if wanted > nodes:
        raise RunFailed("too-few-nodes", f"The strategy {type(strategy).__name__} wants at least {wanted} devices, and the run has {nodes}.")


def agreeing(replies: list[Message], grid: IoTGrid) -> list[Message]:
    """Drop replies whose metric keys are not those of most devices: Flower would end the run for one of them."""
    stats = grid.stats[-1] if grid.stats else None
    if stats is None or not grid.checked:
        return replies
    layouts = collections.Counter(frozenset(result.metrics) for result in stats.results if result.status == "ok")
    if len(layouts) < 2:
        return replies
    usual = layouts.most_common(1)[0][0]
    stats.results = [odd_metrics(r) if r.status == "ok" and frozenset(r.metrics) != usual else r for r in stats.results]
    return [reply for reply in replies if reply.has_error() or _metric_keys(reply) == usual]


def _metric_keys(reply: Message) -> frozenset[str]:
    return frozenset(next(iter(reply.content.metric_records.values())))


def _demand_results(replies: Iterable[Message], number: int, stats: PhaseStats) -> None:
    """A round in which no update is valid cannot make a model: end the run and say why."""
    if any(not reply.has_error() for reply in replies):
        return
    reasons = collections.Counter(result.code for result in stats.results)
    worst = max(stats.results, key=lambda result: reasons[result.code])
    counts = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
    raise RunFailed(
        worst.code, f"No device gave a valid update in round {number} ({counts}); {worst.device}: {worst.reason}"
    )


def _ndarrays(arrays: ArrayRecord) -> ArrayMap:
    return {key: value.numpy() for key, value in arrays.items()}


def _specs(arrays: ArrayRecord) -> list[ArraySpec]:
    return array_specs(_ndarrays(arrays))


def _with_dtypes(arrays: ArrayRecord, specs: list[ArraySpec]) -> ArrayRecord:
    """Adaptive strategies return float64: twice the payload, and another dtype than the model's."""
    restored = restore_dtypes(_ndarrays(arrays), specs)
    return ArrayRecord({key: Array(value) for key, value in restored.items()})


def _plain(metrics: MetricRecord | None) -> dict[str, Any]:
    return dict(metrics) if metrics is not None else {}
