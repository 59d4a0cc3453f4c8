"""Rounds of an app that runs its own loop: recorded from the messages that it sends.

Such an app calls no ``Strategy.start``, or a strategy's own: an analysis, a loop written by hand, a
workflow of Flower's older interface. What it sends with one round's number is one round; where
messages carry no number, a round begins when a kind of message comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict

from edge.errors import MLEdgeOpsError
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.messages import EXAMPLES
from fl_runtime.run.records import PhaseStats, RoundRecord, plain, summarize
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.rounds.round_loop import RoundLoop

MODEL_NAMES = ("arrays", "parameters", "model")
"""Names by which apps and Flower's workflows leave a model in ``context.state``."""
LEGACY_EXAMPLES = "num_examples"
"""The example count in the records of Flower's older clients."""
_MODEL_KINDS = ("train", "evaluate")


class EndedEarlyError(MLEdgeOpsError):
    """Leaves the app's own loop when no further round is to be run."""

    exit_code = 1
    code = "ended-early"


class OwnRounds:
    """Records the rounds that one app runs without our round loop."""

    def __init__(self, loop: RoundLoop, phases: PhaseExecutor) -> None:
        self._loop = loop
        self._executor = phases
        self._lock = threading.Lock()
        self._phases: list[PhaseStats] = []
        self._number = 0
        """Of the round under way, as its messages say; 0: they say nothing."""
        self._metrics: dict[str, dict[str, Any]] = {}
        """Means of the round under way, by kind."""
        self._sent: ArrayRecord | None = None
        """The model that was sent last."""
        self._layouts: list[set[str]] = []
        """The different sets of array names that messages for training or evaluation had."""

    def add(self, messages: Sequence[Message], replies: Sequence[Message]) -> None:
        """Add the messages of one call of the app, and their replies.

        Raises:
            RunFailed: the run was stopped, or has an option that needs our round loop.
            EndedEarlyError: its target is reached or its budget used.
        """
        if self._loop.started:  # beside the strategy's rounds: it belongs to none
            return
        with self._lock:
            stats = self._executor.take_stats()
            if not stats:
                return
            number = max(phase.server_round for phase in stats)
            kinds = {phase.kind for phase in stats}
            if self._phases and self._is_next(number, kinds):
                self._record()
            self._number = number or self._number
            self._phases += stats
            for kind in kinds:
                self._add_kind(kind, messages, replies)

    def finish(self) -> None:
        """Record the last round."""
        with self._lock:
            if self._phases and not self._loop.started:
                self._record()

    def model(self, result: ArrayRecord | None, state: RecordDict) -> ArrayRecord | None:
        """The run's model, or None: ``result`` (of a strategy's own ``start``), what the app left
        in its state, or else the arrays that it sent last for training or evaluation.

        A result whose arrays no device ever got, such as a survival curve, is no model.
        """
        if result and set(result) in self._layouts:
            return result
        left = dict(state.array_records)
        for name in MODEL_NAMES:
            if left.get(name):
                return left[name]
        return next(iter(left.values())) if len(left) == 1 else self._sent

    def _is_next(self, number: int, kinds: set[str]) -> bool:
        if number and self._number:
            return number != self._number
        return bool(kinds & {phase.kind for phase in self._phases})

    def _add_kind(self, kind: str, messages: Sequence[Message], replies: Sequence[Message]) -> None:
        asked = [message for message in messages if message.metadata.message_type == kind]
        ids = {message.metadata.message_id for message in asked}
        answers = [reply for reply in replies if reply.metadata.reply_to_message_id in ids]
        if kind.partition(".")[0] in _MODEL_KINDS:
            for message in asked:
                for record in message.content.array_records.values():
                    if set(record) not in self._layouts:
                        self._layouts.append(set(record))
            shared = shared_arrays(asked)
            if shared is not None and (kind.startswith("evaluate") or _trained(shared, answers)):
                self._sent = shared
        self._metrics.setdefault(kind, {}).update(mean_metrics(answers))

    def _record(self) -> None:
        """The round under way is over."""
        loop = self._loop
        number = loop.starts.last_round = loop.starts.last_round + 1
        record = self._summary(number)
        trains = any(phase.kind.startswith("train") for phase in self._phases)
        if trains:
            check_options(loop.spec, "own-rounds", "The app runs its own rounds")
        self._phases, self._metrics, self._number = [], {}, 0
        known = loop.starts.known_rounds()
        loop.stopping.add(record)
        if number > len(known):  # an earlier server has recorded the others
            loop.record(record, None)
        if loop.stopped():
            raise RunFailed("stopped", f"The run was stopped after round {number}.")
        if loop.stopping.reason:
            raise EndedEarlyError

    def _summary(self, number: int) -> RoundRecord:
        def of(kind: str) -> dict[str, Any]:
            found = {}
            for name, metrics in self._metrics.items():
                if name.partition(".")[0] == kind:
                    found.update(metrics)
            return found

        return summarize(
            number, self._phases, train=of("train"), evaluate=of("evaluate"), server={}, start=0
        )


def check_options(spec: RunSpec, code: str, what: str) -> None:
    """Raise RunFailed with the code for an option that needs our round loop."""
    needs_loop = {
        "--strategy and --set strategy.*": spec.strategy or spec.strategy_params,
        "--resume": spec.resume_from,
        "--selection": spec.selection,
        "--quorum": spec.quorum > 1 or spec.quorum_fraction,
    }
    for option, given in needs_loop.items():
        if given:
            raise RunFailed(
                code, f"{what}: {option} needs an app that calls a stock Strategy.start."
            )


def shared_arrays(messages: Sequence[Message]) -> ArrayRecord | None:
    """The one array record that all messages carry, or None: then it is no model of the fleet."""
    found: ArrayRecord | None = None
    for message in messages:
        records = list(message.content.array_records.values())
        if len(records) != 1 or not records[0]:
            return None
        if found is None:
            found = records[0]
        elif not _same(found, records[0]):
            return None
    return found


def _trained(sent: ArrayRecord, answers: Sequence[Message]) -> bool:
    """Whether a device replied with arrays of these names: gradients get no such reply."""
    return any(
        set(record) == set(sent)
        for answer in answers
        if answer.has_content()
        for record in answer.content.array_records.values()
    )


def _same(one: ArrayRecord, other: ArrayRecord) -> bool:
    if one is other:
        return True
    return list(one) == list(other) and all(
        a is b or (a.shape == b.shape and a.dtype == b.dtype and a.data == b.data)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def mean_metrics(replies: Sequence[Message]) -> dict[str, float]:
    """The mean of each number that all replies report, weighted by their example counts.

    Unweighted where not all of them give a positive one.
    """
    rows = [_numbers(reply.content) for reply in replies if reply.has_content()]
    if not rows:
        return {}
    counts = [row.get(EXAMPLES, row.get(LEGACY_EXAMPLES, 0.0)) for row in rows]
    weights = counts if all(count > 0 for count in counts) else [1.0] * len(rows)
    total = sum(weights)
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {
        name: sum(row[name] * weight for row, weight in zip(rows, weights, strict=True)) / total
        for name in names
        if name not in (EXAMPLES, LEGACY_EXAMPLES)
    }


def _numbers(content: RecordDict) -> dict[str, float]:
    found: dict[str, float] = {}
    records: list[Mapping[str, Any]] = list(content.metric_records.values())
    # Flower's older clients report their metrics in a config record.
    records += [
        record for name, record in content.config_records.items() if name.endswith("res.metrics")
    ]
    for record in records:
        found.update(
            {
                name: float(value)
                for name, value in plain(record).items()
                if isinstance(value, int | float)
            }
        )
    return found
