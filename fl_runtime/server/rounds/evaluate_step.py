"""A round's evaluation on the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flwr.app import MetricRecord
from flwr.serverapp.strategy import Strategy

from fl_runtime.run.cohorts import Member
from fl_runtime.run.records import PhaseStats
from fl_runtime.server.aggregation.by_the_app import aggregated_by_the_app
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.rounds.strategies import minimum_nodes
from fl_runtime.server.rounds.train_step import RoundInput

SILENT_CODES = ("no-reply", "cohort-lost")


def evaluate(
    strategy: Strategy, grid: IoTGrid, policy: PhasePolicy, given: RoundInput
) -> MetricRecord | None:
    """Evaluate a round's model; None when the strategy evaluates on no device.

    ``policy`` is that of the round's training. Devices that were silent then are not asked: they
    would cost the round a second deadline.
    """
    stats = grid.phases.stats
    responsive = _responsive(policy.available, stats, max(minimum_nodes(strategy), 1))
    policy = replace(policy, available=tuple(responsive))
    grid = grid.under(policy)
    messages = list(strategy.configure_evaluate(given.number, given.arrays, given.config, grid))
    if not messages:
        return None
    replies = list(grid.send_and_receive(messages, timeout=given.timeout))
    aggregate = partial(strategy.aggregate_evaluate, given.number)
    if "evaluate" not in policy.any_shape:
        metrics: MetricRecord | None = aggregate(replies)
        return metrics
    return aggregated_by_the_app(aggregate, replies, grid.phases)


def _responsive(
    members: Sequence[Member], stats: Sequence[PhaseStats], at_least: int
) -> Sequence[Member]:
    silent = {
        result.device for phase in stats for result in phase.results if result.code in SILENT_CODES
    }
    responsive = [member for member in members if member.device not in silent]
    return responsive if len(responsive) >= at_least else members
