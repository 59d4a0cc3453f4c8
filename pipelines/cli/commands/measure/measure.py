"""One number of ``mledgeops bench``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measured value and its target."""

    name: str
    value: float
    unit: str
    target: float | None = None
    """The largest good value; None: there is no target."""

    @property
    def ratio(self) -> float | None:
        """Value over target: at most 1 is good."""
        return None if self.target is None else round(self.value / self.target, 2)

    @property
    def is_met(self) -> bool:
        """Whether the target is met, or there is none."""
        return self.ratio is None or self.ratio <= 1
