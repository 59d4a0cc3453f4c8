"""What an app declares of its metrics in ``[tool.mledgeops]``: their names and their ranges.

::

    [tool.mledgeops]
    metrics = { train = ["train_loss"], evaluate = ["accuracy", "loss"] }
    ranges = { accuracy = [0, 1] }
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge.typed import convert
from fl_runtime.run.errors import RunFailed

_KINDS = ("train", "evaluate")


@dataclass(frozen=True)
class MetricRules:
    """The metrics that devices may report. By default: any."""

    names: Mapping[str, list[str]] = field(default_factory=dict)
    """By the kind of the phase, without the example count."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Smallest and largest value by metric, both allowed."""


def metric_rules(settings: Mapping[str, Any]) -> MetricRules:
    """The rules in an app's ``[tool.mledgeops]``. Raises RunFailed, naming what is malformed."""
    try:
        names = convert(settings.get("metrics", {}), dict[str, list[str]])
        ranges = convert(settings.get("ranges", {}), dict[str, tuple[float, float]])
    except msgspec.ValidationError as error:
        raise RunFailed(
            "app-load",
            "[tool.mledgeops] metrics is a table of lists of names, and ranges a table of pairs of "
            f"numbers: {error}.",
        ) from error
    if unknown := set(names) - set(_KINDS):
        raise RunFailed(
            "app-load", f"[tool.mledgeops] metrics has {min(unknown)!r}; it has {_KINDS}."
        )
    for name, (least, most) in ranges.items():
        if not (math.isfinite(least) and math.isfinite(most) and least <= most):
            raise RunFailed(
                "app-load", f"[tool.mledgeops] ranges gives {name} no range: {least:g} to {most:g}."
            )
    return MetricRules(names, ranges)
