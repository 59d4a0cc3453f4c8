"""The round loop: ``Strategy.start`` with the same meaning, and what a fleet needs besides.

Besides: cohort folding where it is exact, dtypes kept, selection, spares and a quorum, devices that
keep
failing left out, an end before the last round, and every finished round recorded before the next
begins.
"""

from __future__ import annotations

import collections
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from edge.logs import event
from edge.protocol.records import ArrayMap
from fl_runtime.cohort.aggregation import restore_dtypes
from fl_runtime.run.cohorts import Member
from fl_runtime.run.cost import Shape
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.messages import ArraySpec, DeviceResult, array_specs, odd_metrics
from fl_runtime.run.ports import Clock, ObjectMissing, Sleep
from fl_runtime.run.records import PhaseStats, RoundRecord, summarize
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.flower_compat import readdressed
from fl_runtime.server.rounds.champion import Comparing
from fl_runtime.server.rounds.checkpoints import Checkpoint, restore, take
from fl_runtime.server.rounds.grid import Folding, IoTGrid
from fl_runtime.server.rounds.selection import History, available, choose, with_spares
from fl_runtime.server.rounds.stopping import Ending, Judge
from fl_runtime.server.rounds.strategies import adjust, build, foldable, minimum_results

logger = logging.getLogger(__name__)

RecordRound = Callable[[RoundRecord, list[PhaseStats], Checkpoint | None], None]
Resume = Callable[[], "Resumed | None"]
Ready = Callable[[], set[str]]
"""Names of the devices that meet the run's requirements at this moment."""
ATTEMPTS = 3
"""A round without a quorum is tried so often, when some of the failures may pass."""
PASSING = frozenset(
    {
        "no-reply",
        "cohort-lost",
        "not-sent",
        "deadline",
        "download-failed",
        "upload-failed",
        "worker-died",
        "out-of-memory",
        "disk-full",
        "update-missing",
    }
)
"""Failures that may be over a moment later: links, reboots, memory. A wrong app stays wrong."""
SILENT = ("no-reply", "cohort-lost")
READY_SECONDS = 2.0
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class Resumed:
    """Where an earlier server of the same run got to."""

    checkpoint: Checkpoint
    rounds: list[RoundRecord]


class RoundLoop:
    """Runs the rounds of one run. ``result`` holds the outcome for the server."""

    def __init__(
        self,
        spec: RunSpec,
        record: RecordRound,
        stopped: Callable[[], bool],
        resume: Resume = lambda: None,
        *,
        ending: Ending | None = None,
        ready: Ready | None = None,
        comparing: Comparing | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._resume = resume
        self._ready = ready
        self._comparing = comparing
        self._last: RoundRecord | None = None
        self._clock = clock
        self._sleep = sleep
        self.history = History()
        self.ending = ending or Ending(spec, Shape(proxies=0), Judge(spec.metric, spec.goal))
        self.final_round = 0
        """The round whose model is the run's."""
        self.spec = spec
        self.record = record
        self._stopped = stopped
        self.result: Result | None = None
        self.strategy_name = ""

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
        grid.asked = grid.members
        strategy = self._chosen(strategy, grid)
        _demand_nodes(strategy, len(grid.members))
        _demand_quorum(self.spec, strategy, len(grid.members))
        grid.folding = Folding(weighted_by=strategy.weighted_by_key) if foldable(strategy) else None
        grid.checked = not type(strategy).__name__.startswith("FedXgb")
        self.result, self.strategy_name = Result(), type(strategy).__name__
        specs = _specs(initial_arrays)
        first, arrays = self._begin(strategy, grid, initial_arrays)
        if first == 1:
            self._evaluate_centrally(evaluate_fn, 0, arrays)
        grid.stats.clear()
        for number in range(first, self.spec.num_rounds + 1):
            if self._ended():
                break
            arrays = self._train(
                strategy, grid, number, arrays, train_config or ConfigRecord(), timeout, specs
            )
            self._evaluate(
                strategy, grid, number, arrays, evaluate_config or ConfigRecord(), timeout
            )
            self._evaluate_centrally(evaluate_fn, number, arrays)
            self._finish_round(grid, number, arrays, strategy)
            if self._stopped():
                raise RunFailed("stopped", f"The run was stopped after round {number}.")
        self._settle(grid)
        self._compare(strategy, grid, evaluate_config or ConfigRecord(), timeout)
        grid.folding, grid.checked, grid.asked, grid.norm_limit = None, False, grid.members, 0.0
        return self.result

    def _ended(self) -> bool:
        if self.ending.reason:
            event(logger, "ended-early", run=self.spec.run, reason=self.ending.reason)
        return bool(self.ending.reason)

    def _settle(self, grid: IoTGrid) -> None:
        """The run's model is the last round's; where a budget ended the run, the best round's."""
        best = self.ending.best
        if best is None or not self.ending.keep_best or best.round == self.final_round:
            return
        try:
            weights = grid.stored(best.model)
        except (
            ObjectMissing
        ) as error:  # of a run resumed after the month for which its rounds' models are kept
            event(
                logger,
                "best-model-gone",
                logging.WARNING,
                run=self.spec.run,
                round=best.round,
                reason=str(error),
            )
            return
        self._result().arrays = ArrayRecord({key: Array(array) for key, array in weights.items()})
        self.final_round = best.round

    def _compare(
        self, strategy: Strategy, grid: IoTGrid, config: ConfigRecord, timeout: float
    ) -> None:
        best, result = self.ending.best, self._result()
        final = best if best is not None and best.round == self.final_round else self._last
        if self._comparing is not None and final is not None and result.arrays:
            self._comparing.run(strategy, grid, final, result.arrays, config, timeout)
            grid.stats.clear()

    def _chosen(self, strategy: Strategy, grid: IoTGrid) -> Strategy:
        """The run's strategy replaces the app's; parameters alone change the app's."""
        if self.spec.strategy:
            return build(
                self.spec.strategy,
                self.spec.strategy_params,
                len(list(grid.get_node_ids())),
                like=strategy,
            )
        adjust(strategy, self.spec.strategy_params)
        return strategy

    def _train(
        self,
        strategy: Strategy,
        grid: IoTGrid,
        number: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        timeout: float,
        specs: list[ArraySpec],
    ) -> ArrayRecord:
        grid.norm_limit = self.history.norm_limit()
        replies: list[Message] = []
        for attempt in range(1, ATTEMPTS + 1):
            grid.asked = self._available(strategy, grid, number)
            messages, spares = self._targets(
                strategy,
                grid,
                list(strategy.configure_train(number, arrays, config, grid)),
                number,
                attempt,
            )
            before = len(grid.stats)
            replies = agreeing(
                list(grid.send_and_receive(messages, timeout=timeout, spares=spares)), grid
            )
            if not messages or self._enough(
                strategy, grid.stats[before:], len(messages) - len(spares), number, attempt
            ):
                break
        aggregated, metrics = strategy.aggregate_train(number, replies)
        result = self._result()
        if metrics is not None:
            result.train_metrics_clientapp[number] = metrics
        if aggregated is None:
            return arrays
        result.arrays = _with_dtypes(aggregated, specs)
        return result.arrays

    def _available(self, strategy: Strategy, grid: IoTGrid, number: int) -> list[Member]:
        """The devices that this round may ask; waits for enough of them where the run requires
        something of them.
        """
        least = max(_least_nodes(strategy), _quorum(self.spec, strategy, 0))
        deadline = self._clock() + self.spec.deadline_seconds
        while True:
            ready = self._ready() if self._ready is not None else None
            members = (
                grid.members
                if ready is None
                else [member for member in grid.members if member.device in ready]
            )
            if len(members) >= least:
                return available(members, self.history, number, least)
            if self._clock() >= deadline or self._stopped():
                raise RunFailed(
                    "too-few-nodes",
                    f"Round {number} wants at least {least} devices, and {len(members)} of the run's {len(grid.members)} "
                    f"met its requirements after {self.spec.deadline_seconds:.0f} s.",
                )
            self._sleep(READY_SECONDS)

    def _targets(
        self, strategy: Strategy, grid: IoTGrid, messages: list[Message], number: int, attempt: int
    ) -> tuple[list[Message], frozenset[int]]:
        """The strategy's messages, to the devices that the run's selection chose, and more of them
        to spares.
        """
        alike = len({id(message.content) for message in messages}) == 1
        if not messages or (not alike and not self.spec.selection):
            return messages, frozenset()
        if not alike:
            raise RunFailed(
                "selection",
                f"{type(strategy).__name__} writes to each device by name: it allows no other selection than its own.",
            )
        if self.spec.selection:
            chosen = choose(self.spec, grid.asked, len(messages), self.history, number, attempt)
            messages = [readdressed(messages[0], member.node_id) for member in chosen]
        else:
            targets = {message.metadata.dst_node_id for message in messages}
            chosen = [member for member in grid.asked if member.node_id in targets]
        spares = (
            with_spares(self.spec, grid.cohorts, chosen, grid.asked, number, attempt)
            if len(chosen) < len(grid.asked)
            else []
        )
        return [
            *messages,
            *(readdressed(messages[0], member.node_id) for member in spares),
        ], frozenset(member.node_id for member in spares)

    def _enough(
        self, strategy: Strategy, stats: list[PhaseStats], wanted: int, number: int, attempt: int
    ) -> bool:
        """Whether the round has its quorum; False to try it again with others, RunFailed when that
        would not help.
        """
        results = [result for phase in stats for result in phase.results]
        valid, needed = (
            sum(result.status == "ok" for result in results),
            _quorum(self.spec, strategy, wanted),
        )
        if valid >= needed:
            return True
        failed = [result for result in results if result.status == "error"]
        if (
            attempt < ATTEMPTS
            and any(result.code in PASSING for result in failed)
            and not self._stopped()
        ):
            for phase in stats:  # what came counts for nothing: the next try asks anew
                phase.results = [
                    _repeated(result) if result.status == "ok" else result
                    for result in phase.results
                ]
            event(
                logger,
                "round-repeated",
                logging.WARNING,
                run=self.spec.run,
                round=number,
                valid=valid,
                needed=needed,
            )
            return False
        raise RunFailed(
            failed[0].code if failed else "quorum", _too_few(number, valid, needed, failed)
        )

    def _evaluate(
        self,
        strategy: Strategy,
        grid: IoTGrid,
        number: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        timeout: float,
    ) -> None:
        grid.asked = self._heard(strategy, grid)
        messages = list(strategy.configure_evaluate(number, arrays, config, grid))
        if not messages:
            return
        metrics = strategy.aggregate_evaluate(
            number, agreeing(list(grid.send_and_receive(messages, timeout=timeout)), grid)
        )
        if metrics is not None:
            self._result().evaluate_metrics_clientapp[number] = metrics

    def _heard(self, strategy: Strategy, grid: IoTGrid) -> list[Member]:
        """Without the devices that were silent while the round trained: they would cost it a second
        deadline.
        """
        silent = {
            result.device
            for phase in grid.stats
            for result in phase.results
            if result.code in SILENT
        }
        heard = [member for member in grid.asked if member.device not in silent]
        return heard if len(heard) >= max(_least_nodes(strategy), 1) else grid.asked

    def _evaluate_centrally(
        self, evaluate_fn: EvaluateFn | None, number: int, arrays: ArrayRecord
    ) -> None:
        metrics = evaluate_fn(number, arrays) if evaluate_fn else None
        if metrics is not None:
            self._result().evaluate_metrics_serverapp[number] = metrics

    def _begin(
        self, strategy: Strategy, grid: IoTGrid, initial: ArrayRecord
    ) -> tuple[int, ArrayRecord]:
        """The first round to run and the weights it starts from: those given, or where the run was
        left.
        """
        resumed = self._resume()
        if resumed is None:
            return 1, initial
        checkpoint, result = resumed.checkpoint, self._result()
        restore(checkpoint, _ndarrays(initial), strategy)
        grid.resume_at(checkpoint.sequence)
        result.arrays = ArrayRecord(
            {key: Array(np.array(array)) for key, array in checkpoint.arrays.items()}
        )
        for record in resumed.rounds:
            self._remember(record)
            for metrics, history in (
                (record.train, result.train_metrics_clientapp),
                (record.evaluate, result.evaluate_metrics_clientapp),
                (record.server, result.evaluate_metrics_serverapp),
            ):
                if metrics:
                    history[record.round] = MetricRecord(metrics)
        if self.spec.resume_from and self.ending.best is not None:
            grid.adopt(self.ending.best.model, self.spec.resume_from)
        event(logger, "resumed", run=self.spec.run, finished_round=checkpoint.round)
        return checkpoint.round + 1, result.arrays

    def _finish_round(
        self, grid: IoTGrid, number: int, arrays: ArrayRecord, strategy: Strategy
    ) -> None:
        result, stats, weights = self._result(), list(grid.stats), _ndarrays(arrays)
        grid.stats.clear()
        record = summarize(
            number,
            stats,
            train=_plain(result.train_metrics_clientapp.get(number)),
            evaluate=_plain(result.evaluate_metrics_clientapp.get(number)),
            server=_plain(result.evaluate_metrics_serverapp.get(number)),
            model=grid.store(weights),
        )
        self.record(record, stats, take(number, grid.sequence, weights, strategy))
        self._remember(record)

    def _remember(self, record: RoundRecord) -> None:
        """What later rounds depend on; all of it comes from the records, so a resumed run knows the
        same.
        """
        self.history.take(record)
        self.ending.take(record)
        self.final_round, self._last = record.round, record

    def _result(self) -> Result:
        if self.result is None:
            raise RuntimeError("the round loop has not been started")
        return self.result


def _demand_nodes(strategy: Strategy, nodes: int) -> None:
    """Flower waits for ever when a strategy's minimum is above the nodes there are."""
    wanted = _least_nodes(strategy)
    if wanted > nodes:
        raise RunFailed(
            "too-few-nodes",
            f"The strategy {type(strategy).__name__} wants at least {wanted} devices, and the run has {nodes}.",
        )


def agreeing(replies: list[Message], grid: IoTGrid) -> list[Message]:
    """Drop replies whose metric keys are not those of most devices: Flower would end the run for
    one of them.
    """
    stats = grid.stats[-1] if grid.stats else None
    if stats is None or not grid.checked:
        return replies
    layouts = collections.Counter(
        frozenset(result.metrics) for result in stats.results if result.status == "ok"
    )
    if len(layouts) < 2:
        return replies
    usual = layouts.most_common(1)[0][0]
    stats.results = [
        odd_metrics(r) if r.status == "ok" and frozenset(r.metrics) != usual else r
        for r in stats.results
    ]
    return [reply for reply in replies if reply.has_error() or _metric_keys(reply) == usual]


def _metric_keys(reply: Message) -> frozenset[str]:
    return frozenset(next(iter(reply.content.metric_records.values())))


def _least_nodes(strategy: Strategy) -> int:
    return max(
        getattr(strategy, name, 0)
        for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
    )


def _quorum(spec: RunSpec, strategy: Strategy, wanted: int) -> int:
    """Valid updates that a round needs, when it wants updates of ``wanted`` devices."""
    return max(spec.quorum, math.ceil(spec.quorum_fraction * wanted), minimum_results(strategy))


def _demand_quorum(spec: RunSpec, strategy: Strategy, nodes: int) -> None:
    """A quorum that no round could reach ends the run before it begins."""
    if (needed := _quorum(spec, strategy, nodes)) > nodes:
        by = f"{type(strategy).__name__}, quorum {spec.quorum}"
        raise RunFailed(
            "quorum",
            f"A round needs {needed} valid updates ({by}), and the run has {nodes} devices.",
        )


def _repeated(result: DeviceResult) -> DeviceResult:
    return msgspec.structs.replace(result, status="spare", code="repeated")


def _too_few(number: int, valid: int, needed: int, failed: list[DeviceResult]) -> str:
    """Why a round cannot make a model, with the most frequent reason and an example of it."""
    if not failed:
        return f"Round {number} needs {needed} valid updates, and only {valid} devices were asked."
    reasons = collections.Counter(result.code for result in failed)
    worst = max(failed, key=lambda result: reasons[result.code])
    counts = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
    got = (
        "No device gave a valid update"
        if not valid
        else f"Only {valid} devices gave a valid update, where {needed} are needed,"
    )
    return f"{got} in round {number} ({counts}); {worst.device}: {worst.reason}"


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
