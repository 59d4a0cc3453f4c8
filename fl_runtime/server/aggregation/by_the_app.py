"""Aggregation by the app's own code, which no single reply may end.

Replies to such a strategy may have any shape, so a device can send one that the code cannot take.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from flwr.app import Message

from edge.logs import event
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.records import PhaseStats

logger = logging.getLogger(__name__)

Aggregated = TypeVar("Aggregated")
_Layout = tuple[object, ...]


class Phases(Protocol):
    """What has been sent: a :class:`~fl_runtime.server.grid.phases.PhaseExecutor`."""

    stats: list[PhaseStats]


def aggregated_by_the_app(
    aggregate: Callable[[Sequence[Message]], Aggregated],
    replies: Sequence[Message],
    phases: Phases,
) -> Aggregated:
    """What the app makes of the replies; where it raises, of those that are like most.

    The others then count as failed. Raises what the app raised when all are alike.
    """
    # Before the app sees them: it may change what it gets.
    layouts = {id(reply): _layout(reply) for reply in replies if reply.has_content()}
    try:
        return aggregate(replies)
    except RunFailed:
        raise
    except Exception as error:
        votes = collections.Counter(layouts.values()).most_common()
        if len(votes) == 1 or not votes:  # there is nothing to leave out
            raise
        usual = votes[0][0]
        kept = [reply for reply in replies if layouts.get(id(reply), usual) == usual]
        _refuse({reply.metadata.src_node_id for reply in replies if reply not in kept}, phases)
        event(
            logger,
            "replies-left-out",
            logging.WARNING,
            replies=len(replies) - len(kept),
            error=type(error).__name__,
            reason=str(error)[:200],
        )
        return aggregate(kept)


def _layout(reply: Message) -> _Layout:
    """Names, types and shapes of all that a reply holds."""
    arrays = [
        (name, key, array.dtype, tuple(array.shape), array.stype)
        for name, record in reply.content.array_records.items()
        for key, array in record.items()
    ]
    metrics = [
        (name, key, len(value) if isinstance(value, list) else -1)
        for name, record in reply.content.metric_records.items()
        for key, value in record.items()
    ]
    configs = [(name, *sorted(record)) for name, record in reply.content.config_records.items()]
    return (*sorted(arrays), *sorted(metrics), *sorted(configs))


def _refuse(nodes: set[int], phases: Phases) -> None:
    """The replies of these devices, in the last phase, do not count."""
    stats = phases.stats[-1]
    stats.results = [
        msgspec.structs.replace(
            result,
            status="error",
            code="arrays",
            reason="the app could not aggregate it, and it differs from those of most devices",
        )
        if result.node_id in nodes and result.status == "ok"
        else result
        for result in stats.results
    ]
