"""Flower's robust strategies in blocks: the same result in the memory of a few models.

Flower stacks all updates, several times, and copies even a mean of one. The classes themselves are
replaced only: a subclass may aggregate otherwise. Metrics and checks are Flower's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)
from numpy.typing import NDArray

from edge.protocol.records import ArrayMap, Records, ValueMap
from edge.training.flower_compat import from_recorddict, to_recorddict
from fl_runtime.aggregation.blocks import is_finite
from fl_runtime.aggregation.distances import krum_order, squared_distances
from fl_runtime.aggregation.order_statistics import median, trimmed_mean
from fl_runtime.aggregation.weighted_mean import WeightedMean
from fl_runtime.server.grid.flower_compat import (
    mean_of_closest,
    selects_by_multikrum,
    valid_replies,
)

SMALL_BYTES = 2**24
"""Bytes of all updates together up to which Flower's own code aggregates them: the memory does not
matter, and the result is the same to the last bit. Krum may choose between equals by it.
"""
CLOSEST_BLOCK = 2**14
"""Elements of a block of Bulyan's second step."""

_Aggregated = tuple[ArrayRecord | None, MetricRecord | None]
_Updates = list[ArrayMap]
_Combine = Callable[[Sequence[NDArray[Any]]], NDArray[Any]]


def aggregate_train(strategy: Strategy, number: int, replies: Sequence[Message]) -> _Aggregated:
    """``strategy.aggregate_train``, without Flower's copies where it is one of these classes."""
    aggregate = _AGGREGATORS.get(type(strategy))
    contents = [reply.content for reply in replies if not reply.has_error()]
    if aggregate is None or not _fit_blocks(contents):
        result: _Aggregated = strategy.aggregate_train(number, replies)
        return result
    return aggregate(strategy, number, replies)


def _mean(strategy: FedAvg, number: int, replies: Sequence[Message]) -> _Aggregated:
    """A mean of one reply is that reply: so it is where cohorts fold."""
    contents = valid_replies(strategy, replies)
    weights = [
        next(iter(content.metric_records.values()))[strategy.weighted_by_key]
        for content in contents
    ]
    if len(contents) != 1 or not weights[0] > 0:
        result: _Aggregated = strategy.aggregate_train(number, replies)
        return result
    (arrays,) = contents[0].array_records.values()
    return arrays, _metrics(strategy, contents)


def _median(strategy: FedMedian, number: int, replies: Sequence[Message]) -> _Aggregated:  # noqa: ARG001
    contents = valid_replies(strategy, replies)
    return _by_element(median, _updates(contents)), _metrics(strategy, contents)


def _trimmed_mean(strategy: FedTrimmedAvg, number: int, replies: Sequence[Message]) -> _Aggregated:  # noqa: ARG001
    contents = valid_replies(strategy, replies)

    def combine(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return trimmed_mean(rows, strategy.beta)

    return _by_element(combine, _updates(contents)), _metrics(strategy, contents)


def _krum(strategy: MultiKrum, number: int, replies: Sequence[Message]) -> _Aggregated:  # noqa: ARG001
    contents = valid_replies(strategy, replies)
    order = krum_order(squared_distances(_updates(contents)), strategy.num_malicious_nodes)
    chosen = [contents[at] for at in order[: strategy.num_nodes_to_select]]
    mean = WeightedMean(strategy.weighted_by_key)
    for content, update in zip(chosen, _updates(chosen), strict=True):
        weight = float(next(iter(content.metric_records.values()))[strategy.weighted_by_key])
        # The metrics are averaged by Flower's code or the app's.
        counted: ValueMap = {strategy.weighted_by_key: weight}
        mean.add(Records(arrays={"arrays": update}, metrics={"metrics": counted}), weight)
    return _record(mean.records().arrays["arrays"]), _metrics(strategy, chosen)


def _bulyan(strategy: Bulyan, number: int, replies: Sequence[Message]) -> _Aggregated:
    malicious = strategy.num_malicious_nodes
    count = sum(not reply.has_error() for reply in replies)
    if count < 4 * malicious + 3 or not selects_by_multikrum(strategy):
        result: _Aggregated = strategy.aggregate_train(number, replies)
        return result
    contents = valid_replies(strategy, replies)
    order = krum_order(squared_distances(_updates(contents)), malicious)
    chosen = [contents[at] for at in order[: count - 2 * malicious]]
    closest = len(chosen) - 2 * malicious

    def combine(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        middle, flat = median(rows).reshape(-1), [row.reshape(-1) for row in rows]
        for start in range(0, middle.size, CLOSEST_BLOCK):
            at = slice(start, start + CLOSEST_BLOCK)
            middle[at] = mean_of_closest(middle[at], [row[at] for row in flat], closest)
        return middle.reshape(rows[0].shape)

    return _by_element(combine, _updates(chosen)), _metrics(strategy, chosen)


_AGGREGATORS: dict[type[Strategy], Callable[[Any, int, Sequence[Message]], _Aggregated]] = {
    FedAvg: _mean,
    FedProx: _mean,
    FedMedian: _median,
    FedTrimmedAvg: _trimmed_mean,
    Krum: _krum,
    MultiKrum: _krum,
    Bulyan: _bulyan,
}


def _fit_blocks(contents: Sequence[RecordDict]) -> bool:
    """Whether there are large updates, all with one record of the same arrays of finite numbers.

    Of others Flower's own code says what is wrong with them, or passes a NaN on as it does.
    """
    updates = [list(from_recorddict(content).arrays.values()) for content in contents]
    if any(len(records) != 1 for records in updates):
        return False
    if sum(array.nbytes for [arrays] in updates for array in arrays.values()) <= SMALL_BYTES:
        return False
    layouts = {
        tuple((name, array.shape, array.dtype) for name, array in records[0].items())
        for records in updates
    }
    return len(layouts) == 1 and all(
        array.dtype.kind in "biu" or (array.dtype.kind == "f" and is_finite(array))
        for records in updates
        for array in records[0].values()
    )


def _updates(contents: Sequence[RecordDict]) -> _Updates:
    """The arrays of each update, as views."""
    return [next(iter(from_recorddict(content).arrays.values())) for content in contents]


def _by_element(combine: _Combine, updates: _Updates) -> ArrayRecord:
    return _record({name: combine([update[name] for update in updates]) for name in updates[0]})


def _record(arrays: ArrayMap) -> ArrayRecord:
    """Flower's record over the arrays, without a copy. Nobody may write to them any more."""
    for array in arrays.values():
        array.flags.writeable = False
    record: ArrayRecord = to_recorddict(Records(arrays={"arrays": arrays}))["arrays"]
    return record


def _metrics(strategy: Any, contents: list[RecordDict]) -> MetricRecord:
    metrics: MetricRecord = strategy.train_metrics_aggr_fn(contents, strategy.weighted_by_key)
    return metrics
