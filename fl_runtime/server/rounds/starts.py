"""The app's calls of ``Strategy.start``, told apart by their number.

A server that takes a run over runs the app from its beginning. Each call then gets what an earlier
server finished of that very call: the rounds' records say which call they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fl_runtime.run.records import RoundRecord
from fl_runtime.server.rounds.checkpoints import Checkpoint


@dataclass(frozen=True)
class Resumed:
    """Where an earlier server of the same run got to."""

    checkpoint: Checkpoint
    rounds: list[RoundRecord]


@dataclass(frozen=True, kw_only=True)
class Start:
    """One call of ``Strategy.start``."""

    number: int = 1
    """1 for the first call."""
    offset: int = 0
    """Rounds of the run before the first one of this call."""
    rounds: list[RoundRecord] = field(default_factory=list)
    """Those that an earlier server has finished."""
    checkpoint: Checkpoint | None = None
    """From which the call goes on; None: it begins anew, or is over."""
    over: bool = False
    """An earlier server has finished it, and begun rounds of a later call."""


class Starts:
    """Counts the calls of one run."""

    def __init__(self, resume: Callable[[], Resumed | None]) -> None:
        """``resume`` is called once, when something is first asked of an earlier server."""
        self._resume = resume
        self._asked = False
        self._resumed: Resumed | None = None
        self.count = 0
        self.last_round = 0
        """Number of the run's newest round that this server has run or been told of."""

    def begin(self) -> Start:
        """The next call."""
        self.count += 1
        known = self.known_rounds()
        own = [record for record in known if record.start == self.count]
        if not own:
            # Rounds of an earlier server that belong to no earlier call were the app's own.
            return Start(number=self.count, offset=self.last_round)
        offset, self.last_round = own[0].round - 1, own[-1].round
        over = known[-1].start != self.count
        resumed = None if over or self._resumed is None else self._resumed.checkpoint
        return Start(number=self.count, offset=offset, rounds=own, checkpoint=resumed, over=over)

    def known_rounds(self) -> list[RoundRecord]:
        """All rounds that an earlier server has finished."""
        if not self._asked:
            self._asked, self._resumed = True, self._resume()
        return self._resumed.rounds if self._resumed is not None else []
