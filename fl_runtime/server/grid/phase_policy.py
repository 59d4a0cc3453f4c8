"""What the round loop decides about a phase before the grid carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_runtime.run.cohorts import Member
from fl_runtime.run.messages import MetricLayout


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What earlier rounds say of the replies to one kind of phase. By default: nothing."""

    layout: MetricLayout | None = None
    """The metrics that most devices reported last."""
    median_examples: float = 0.0
    """The usual median example count; 0: not known."""
    examples: Mapping[str, float] = field(default_factory=dict)
    """The largest example count so far, by device."""


@dataclass(frozen=True, kw_only=True)
class PhasePolicy:
    """How one phase treats devices and their replies.

    The defaults are Flower's own behaviour: every reply comes back by itself, unchecked. They hold
    for messages that the app sends outside the round loop.
    """

    available: tuple[Member, ...]
    """The devices among which the strategy may choose."""
    fold_by: str | None = None
    """Cohorts fold their replies into one mean, weighted by this metric; None: they do not."""
    checked: bool = False
    """Whether replies must have the model's layout, finite values and an example count."""
    any_shape: frozenset[str] = frozenset()
    """Kinds of phases whose replies the app's own aggregation takes in any shape: they are bounded
    and finite, and held against nothing else.
    """
    any_metrics: frozenset[str] = frozenset()
    """Kinds of phases whose metrics may be NaN or infinite."""
    norm_limit: float = 0.0
    """Largest L2 norm of a change that counts, known from earlier rounds; 0: not known."""
    expected: Mapping[str, Expectation] = field(default_factory=dict)
    """What is known from earlier rounds, by the kind of the phase."""
    over_selected: frozenset[int] = frozenset()
    """Node ids asked beyond the wanted number. A cohort's part of the phase is over as soon as as
    many devices have answered as it has others.
    """
