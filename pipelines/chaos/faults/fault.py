"""What a fault is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.chaos.accidents.accident import Accident
from pipelines.chaos.stage import Stage
from pipelines.chaos.world import World

Act = Callable[[Stage], None]
"""Acts on a run under way, in a thread of its own, and has undone it when it returns."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    kind: str
    act: Act | None = None
    before: Callable[[World, random.Random], Callable[[], None]] | None = None
    """Acts before the run starts; returns what undoes it."""
    ends: str = "Succeeded"
    """How a run under this fault must end."""
    alone: bool = False
    """No other fault comes with it: what it does to a run would not be told from what they do."""
    accident: Accident | None = None
    """What happens to a user's commands, instead of to a run of the suite's own."""
