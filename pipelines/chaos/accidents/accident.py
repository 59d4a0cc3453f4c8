"""What an accident is, and what it acts on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.chaos.accidents.shell import Shell
from pipelines.chaos.slowness import Slowness
from pipelines.local.home import Home


@dataclass
class Scene:
    """A user's folder, in which accidents happen one after the other."""

    folder: Path
    rng: random.Random
    slowness: Slowness
    notes: list[str] = field(default_factory=list)
    """What was done, one sentence each."""
    skipped: bool = False

    def shell(self, home: str = "home") -> Shell:
        """A shell in one of the folder's homes."""
        return Shell(Home(self.folder / home))

    def patience(self, seconds: float) -> float:
        """How long to wait, on this machine now, for what takes ``seconds`` on an idle one."""
        return seconds * self.slowness.now()

    def note(self, text: str) -> None:
        """Record what is done."""
        self.notes.append(text)

    def skip(self, reason: str) -> None:
        """Record why the accident cannot happen on this machine."""
        self.skipped = True
        self.notes.append(f"skipped: {reason}")


Accident = Callable[[Scene], Iterator[str]]
"""Lets it happen, and yields a sentence for each thing that went wrong."""
