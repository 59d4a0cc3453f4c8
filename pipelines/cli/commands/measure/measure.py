"""One number of ``mledgeops bench``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number with its target; ``None``: no target, for the record."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value over target: below 1 is good, on any machine the same question."""
        return None if self.target is None else round(self.value / self.target, 2)
