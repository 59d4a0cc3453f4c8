"""A round's training: select devices, train, check the quorum, aggregate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from edge.logs import event
from fl_runtime.run.cohorts import Member
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import PhaseStats
from fl_runtime.server.aggregation.block_strategies import aggregate_train
from fl_runtime.server.aggregation.by_the_app import aggregated_by_the_app
from fl_runtime.server.grid.flower_compat import readdressed
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.rounds.availability import Availability
from fl_runtime.server.rounds.quorum import (
    ATTEMPTS,
    Quorum,
    discard,
    has_transient_failure,
    no_quorum,
    valid_updates,
)
from fl_runtime.server.rounds.selection import over_select, select
from fl_runtime.server.rounds.strategies import chooses_by_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RoundInput:
    """What a phase of a round starts from."""

    number: int
    arrays: ArrayRecord
    config: ConfigRecord
    timeout: float
    """Seconds, as the app gave them to ``Strategy.start``."""


@dataclass(frozen=True)
class _Attempt:
    """One attempt of a round: the messages, and which of them are over-selection."""

    number: int
    messages: Sequence[Message]
    over_selected: frozenset[int] = frozenset()

    @property
    def wanted(self) -> int:
        """How many updates the strategy asked for."""
        return len(self.messages) - len(self.over_selected)


class TrainStep:
    """Trains the rounds of one run."""

    def __init__(
        self, strategy: Strategy, grid: IoTGrid, policy: PhasePolicy, availability: Availability
    ) -> None:
        self._strategy = strategy
        self._grid = grid
        self._phases = grid.phases
        self._policy = policy
        self._availability = availability
        self._spec = availability.spec
        self._quorum = Quorum(availability.spec, strategy)

    def run(self, given: RoundInput) -> tuple[PhasePolicy, ArrayRecord | None, MetricRecord | None]:
        """Train one round.

        Returns the policy of its last attempt, the aggregated arrays and the aggregated metrics.

        Raises:
            RunFailed: the round has no quorum after all its attempts.
        """
        history = self._availability.history
        norm_limit, expected = history.norm_limit(), history.expectations()
        replies: list[Message] = []
        policy = self._policy
        for attempt in range(1, ATTEMPTS + 1):
            # Devices come and go between attempts.
            members = self._availability.wait(
                self._phases.members, given.number, self._quorum.minimum_available
            )
            policy = replace(
                self._policy,
                available=tuple(members),
                norm_limit=norm_limit,
                expected=expected,
            )
            planned = self._plan(given, policy, attempt)
            self._check_planned(given.number, planned)
            before = len(self._phases.stats)
            replies = self._send(planned, policy, given.timeout)
            stats = self._phases.stats[before:]
            if not planned.messages or self._has_quorum(given.number, planned, stats):
                break
        aggregate = partial(aggregate_train, self._strategy, given.number)
        if "train" not in policy.any_shape:
            return policy, *aggregate(replies)
        return policy, *aggregated_by_the_app(aggregate, replies, self._phases)

    def _check_planned(self, number: int, planned: _Attempt) -> None:
        """Raise RunFailed, before anything is sent, for a round that can have no quorum."""
        needed, wanted = self._quorum.updates_needed(planned.wanted), planned.wanted
        if planned.messages and wanted < needed:
            name = type(self._strategy).__name__
            raise RunFailed(
                "quorum",
                f"Round {number} needs {needed} valid updates ({name}, quorum "
                f"{self._spec.quorum}), and the strategy asks only {wanted} devices: raise its "
                "fraction_train.",
            )

    def _plan(self, given: RoundInput, policy: PhasePolicy, attempt: int) -> _Attempt:
        """The strategy's messages, to the devices that the run's selection chooses, and the same
        message to over-selected devices.
        """
        grid = self._grid.under(policy)
        messages: list[Message] = list(
            self._strategy.configure_train(given.number, given.arrays, given.config, grid)
        )
        same_content = len({id(message.content) for message in messages}) == 1
        same_content = same_content and not chooses_by_order(self._strategy)
        # Messages with contents of their own are addressed by the strategy: no other device can
        # take the place of one of them.
        if not messages or (not same_content and not self._spec.selection):
            return _Attempt(attempt, messages)
        if not same_content:
            raise RunFailed(
                "selection",
                f"{type(self._strategy).__name__} writes to each device by name: it allows no "
                "other selection than its own.",
            )
        if self._spec.selection:
            selected = self._select(policy.available, len(messages), given.number, attempt)
            messages = [readdressed(messages[0], member.node_id) for member in selected]
        else:
            nodes = {message.metadata.dst_node_id for message in messages}
            selected = [member for member in policy.available if member.node_id in nodes]
        more = self._over_select(selected, policy.available, given.number, attempt)
        messages += [readdressed(messages[0], member.node_id) for member in more]
        return _Attempt(attempt, messages, frozenset(member.node_id for member in more))

    def _select(
        self, available: Sequence[Member], count: int, number: int, attempt: int
    ) -> list[Member]:
        history = self._availability.history
        return select(self._spec, available, count, history, number, attempt)

    def _over_select(
        self, selected: Sequence[Member], available: Sequence[Member], number: int, attempt: int
    ) -> list[Member]:
        if len(selected) >= len(available):  # nobody is left to ask
            return []
        cohorts = self._phases.cohorts
        return over_select(self._spec, cohorts, selected, available, number, attempt)

    def _send(self, planned: _Attempt, policy: PhasePolicy, timeout: float) -> list[Message]:
        grid = self._grid.under(replace(policy, over_selected=planned.over_selected))
        return list(grid.send_and_receive(planned.messages, timeout=timeout))

    def _has_quorum(self, number: int, attempt: _Attempt, stats: Sequence[PhaseStats]) -> bool:
        """Whether the round has its quorum; False to attempt it again.

        Raises:
            RunFailed: another attempt would not help, or was the last.
        """
        valid = valid_updates(stats)
        needed = self._quorum.updates_needed(attempt.wanted)
        if valid >= needed:
            return True
        last = attempt.number == ATTEMPTS or self._availability.stopped()
        if last or not has_transient_failure(stats):
            raise no_quorum(number, stats, valid, needed)
        discard(stats)
        event(
            logger,
            "round-repeated",
            logging.WARNING,
            run=self._spec.run,
            round=number,
            valid=valid,
            needed=needed,
        )
        return False
