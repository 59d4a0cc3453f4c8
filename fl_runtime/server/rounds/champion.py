"""Compares the run's final model with the fleet's champion on the same devices and data.

The candidate's metrics are those of the round that made it. The champion is sent to the devices
that gave them, with the same settings. The run's model does not depend on any of this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import msgspec
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.records import ArrayMap, decode_records, digest
from edge.typed import from_json
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import champion_key
from fl_runtime.run.messages import DeviceResult, array_specs
from fl_runtime.run.ports import ObjectStore
from fl_runtime.run.records import (
    Comparison,
    DeviceComparison,
    PhaseStats,
    RoundRecord,
    device_evaluations,
)
from fl_runtime.run.spec import Champion
from fl_runtime.server.grid.flower_compat import readdressed
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.rounds.array_records import to_arrays, to_record

logger = logging.getLogger(__name__)

REASON_LIMIT = 200
"""Characters of a device's reason in the comparison."""
ENDS_RUN = ("stopped", "fenced")
"""Codes of failures that concern the whole run."""

ReadChampion = Callable[[], tuple[Champion, ArrayMap] | None]
"""Reads the champion and its weights; None when the fleet runs no version of this model. Raises
RunFailed with the reason why it cannot be read.
"""


def read_champion(objects: ObjectStore, run: str) -> tuple[Champion, ArrayMap] | None:
    """The model that the fleet ran when the run began, and its weights; None when it ran none.

    Raises:
        RunFailed: the weights are gone, or are not the approved ones.
    """
    try:
        champion = from_json(objects.get(champion_key(run)), type=Champion | None)
        if champion is None:
            return None
        weights = objects.get(champion.key)
        if digest(weights) != champion.digest:
            raise RunFailed(
                "champion",
                f"The weights of the champion {champion.model_version} in S3 are not those that "
                "were approved.",
            )
        return champion, next(iter(decode_records(weights).arrays.values()))
    except (ObjectMissing, ProtocolError) as error:
        message = f"The weights of the champion cannot be read: {error}."
        raise RunFailed("champion", message) from error


class ChampionComparison:
    """Compares once, when the rounds are over. ``result`` is None until then."""

    def __init__(self, read: ReadChampion) -> None:
        self._read = read
        self.result: Comparison | None = None

    def run(
        self,
        strategy: Strategy,
        grid: IoTGrid,
        final: RoundRecord,
        arrays: ArrayRecord,
        config: ConfigRecord,
        timeout: float,
    ) -> None:
        """Evaluate the champion on the devices of ``final``, the round that made ``arrays``.

        A comparison that cannot be made keeps the reason and fails nothing else.
        """
        rows = {row.device: row for row in device_evaluations(final, list(grid.phases.cohorts))}
        comparison = Comparison(
            champion=None,
            round=final.round,
            devices=list(rows.values()),
            strategy=type(strategy).__name__,
        )
        try:
            champion, weights = self._champion()
            comparison = msgspec.structs.replace(comparison, champion=champion)
            _check_layout(champion, weights, to_arrays(arrays))
            messages = _messages(strategy, grid, final.round, rows, to_record(weights), config)
            # Stats of this phase alone: those of the rounds have been recorded.
            grid.phases.take_stats()
            list(grid.send_and_receive(messages, timeout=timeout))
        except RunFailed as error:
            if error.code in ENDS_RUN:
                raise
            event(logger, "not-compared", reason=str(error))
            self.result = msgspec.structs.replace(comparison, reason=str(error))
            return
        self.result = _with_results(comparison, rows, grid.phases.stats[-1])

    def _champion(self) -> tuple[Champion, ArrayMap]:
        found = self._read()
        if found is None:
            raise RunFailed("no-champion", "The fleet runs no earlier version of this model.")
        return found


def _check_layout(champion: Champion, weights: ArrayMap, candidate: ArrayMap) -> None:
    if array_specs(weights) != array_specs(candidate):
        raise RunFailed(
            "layout",
            f"The champion {champion.model_version} has weights of another layout than this model.",
        )


def _messages(
    strategy: Strategy,
    grid: IoTGrid,
    number: int,
    devices: Collection[str],
    champion: ArrayRecord,
    config: ConfigRecord,
) -> list[Message]:
    """The strategy's own evaluate message with the champion's weights, to the given devices."""
    made = list(strategy.configure_evaluate(number, champion, config, grid))
    if not made or not devices:
        raise RunFailed(
            "no-evaluation",
            "The devices do not evaluate this app's models, so the two cannot be compared on "
            "their data.",
        )
    return [
        readdressed(made[0], member.node_id)
        for member in grid.phases.members
        if member.device in devices
    ]


def _with_results(
    comparison: Comparison, rows: Mapping[str, DeviceComparison], phase: PhaseStats
) -> Comparison:
    answered = {result.device: result for result in phase.results}
    devices = [
        _with_result(row, answered[device]) if device in answered else row
        for device, row in rows.items()
    ]
    return msgspec.structs.replace(
        comparison,
        devices=devices,
        seconds=round(phase.seconds, 4),
        bytes_up=sum(result.bytes_up for result in phase.results),
        bytes_down=sum(result.bytes_down for result in phase.results),
    )


def _with_result(row: DeviceComparison, result: DeviceResult) -> DeviceComparison:
    failed = result.status != "ok"
    reason = f"{result.code}: {result.reason}"[:REASON_LIMIT] if failed else ""
    return msgspec.structs.replace(row, champion=dict(result.metrics), reason=reason)
