"""RunTable in memory, with the same conditions on its writes."""

from __future__ import annotations

from typing import Any

import msgspec

from fl_runtime.run.state import TERMINAL_STATES, RunState


class MemoryRunTable:
    """Run items in a dictionary."""

    def __init__(self, *states: RunState) -> None:
        self.items = {state.run: state for state in states}

    def create(self, state: RunState) -> bool:
        return self.items.setdefault(state.run, state) is state

    def get(self, run: str) -> RunState | None:
        return self.items.get(run)

    def take_over(self, run: str) -> int:
        self._set(run, epoch=self.items[run].epoch + 1)
        return self.items[run].epoch

    def commit_round(self, run: str, epoch: int, number: int, checkpoint: str) -> bool:
        state = self.items[run]
        if state.epoch != epoch or state.state in TERMINAL_STATES:
            return False
        self._set(run, finished_round=number, checkpoint=checkpoint)
        return True

    def update(
        self, run: str, *, unless: tuple[str, ...] = (), epoch: int = 0, **changes: Any
    ) -> bool:
        state = self.items.get(run)
        if state is None or state.state in (*TERMINAL_STATES, *unless):
            return False
        if epoch not in (0, state.epoch):
            return False
        self._set(run, **changes)
        return True

    def _set(self, run: str, **changes: Any) -> None:
        self.items[run] = msgspec.structs.replace(self.items[run], **changes)
