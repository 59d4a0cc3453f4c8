"""The champion beside the candidate: both evaluated on the same devices, on what each device holds
out, in the same round.

The candidate's numbers are those of the round that made it; the champion goes to the devices that
gave them, with the
same settings. Nothing of it changes the run's model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, decode_records, digest
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import champion_key
from fl_runtime.run.messages import array_specs
from fl_runtime.run.ports import ObjectMissing, ObjectStore
from fl_runtime.run.records import Comparison, RoundRecord, evaluated
from fl_runtime.run.spec import Champion
from fl_runtime.server.flower_compat import readdressed
from fl_runtime.server.rounds.grid import IoTGrid

logger = logging.getLogger(__name__)


ReadChampion = Callable[[], tuple[Champion, ArrayMap] | None]
"""The champion and its weights; None when the fleet runs no version of this model. Raises RunFailed
with the reason it cannot be had.
"""


def read_champion(objects: ObjectStore, run: str) -> tuple[Champion, ArrayMap] | None:
    """What the fleet ran of this model when the run began; raises RunFailed when its weights are
    gone or are others.
    """
    try:
        champion = msgspec.json.decode(objects.get(champion_key(run)), type=Champion | None)
        if champion is None:
            return None
        weights = objects.get(champion.key)
        if digest(weights) != champion.digest:
            raise RunFailed(
                "champion",
                f"The weights of the champion {champion.model_version} in S3 are not those that were approved.",
            )
        return champion, next(iter(decode_records(weights).arrays.values()))
    except (ObjectMissing, ProtocolError) as error:
        raise RunFailed(
            "champion", f"The weights of the champion cannot be read: {error}."
        ) from error


class Comparing:
    """Compares once, when the rounds are over. ``done`` is what came of it."""

    def __init__(self, read: ReadChampion) -> None:
        self._read = read
        self.done: Comparison | None = None

    def run(
        self,
        strategy: Strategy,
        grid: IoTGrid,
        final: RoundRecord,
        arrays: ArrayRecord,
        config: ConfigRecord,
        timeout: float,
    ) -> None:
        """``final``: the record of the round whose model the run's is. A comparison that fails says
        why, and fails nothing else.
        """
        rows = {row.device: row for row in evaluated(final, grid.cohorts)}
        done = Comparison(
            champion=None,
            round=final.round,
            devices=list(rows.values()),
            strategy=type(strategy).__name__,
        )
        try:
            found = self._read()
            if found is None:
                raise RunFailed("no-champion", "The fleet runs no earlier version of this model.")
            champion, weights = found
            done = msgspec.structs.replace(done, champion=champion)
            if array_specs(weights) != array_specs(
                {key: value.numpy() for key, value in arrays.items()}
            ):
                raise RunFailed(
                    "layout",
                    f"The champion {champion.model_version} has weights of another layout than this model.",
                )
            record = ArrayRecord({key: Array(np.array(array)) for key, array in weights.items()})
            messages = _messages(strategy, grid, final.round, rows, record, config)
            grid.stats.clear()
            list(grid.send_and_receive(messages, timeout=timeout))
        except RunFailed as error:
            if error.code in ("stopped", "fenced"):
                raise
            event(logger, "not-compared", reason=str(error))
            self.done = msgspec.structs.replace(done, reason=str(error))
            return
        phase = grid.stats[-1]
        for result in phase.results:
            row = rows[result.device]
            reason = f"{result.code}: {result.reason}"[:200] if result.status != "ok" else ""
            rows[result.device] = msgspec.structs.replace(
                row, champion=dict(result.metrics), reason=reason
            )
        self.done = msgspec.structs.replace(
            done,
            devices=list(rows.values()),
            seconds=round(phase.seconds, 4),
            bytes_up=sum(result.bytes_up for result in phase.results),
            bytes_down=sum(result.bytes_down for result in phase.results),
        )


def _messages(
    strategy: Strategy,
    grid: IoTGrid,
    number: int,
    asked: Collection[str],
    champion: ArrayRecord,
    config: ConfigRecord,
) -> list[Message]:
    """The strategy's own evaluate message, with the champion's weights, to the devices that
    evaluated the candidate.
    """
    grid.asked = grid.members  # the strategy's minimum holds for all of them
    made = list(strategy.configure_evaluate(number, champion, config, grid))
    if not made or not asked:
        raise RunFailed(
            "no-evaluation",
            "The devices do not evaluate this app's models, so the two cannot be compared on their data.",
        )
    return [
        readdressed(made[0], member.node_id) for member in grid.members if member.device in asked
    ]
