"""Stock Flower strategies by name, their parameters checked before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import flwr.serverapp.strategy as stock
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    MultiKrum,
    Strategy,
)

from edge.protocol.messages import ConfigValue
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.flower_compat import averages_metrics

WEIGHTED_MEANS = (FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad)
"""Strategies whose aggregation is a weighted mean, or starts with one: cohorts may fold for them.
"""

_SHARED = (
    "fraction_train",
    "fraction_evaluate",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
)
_MINIMUMS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def names() -> list[str]:
    """Every stock strategy that can be made from plain parameters."""
    found = []
    for name, kind in inspect.getmembers(stock, inspect.isclass):
        if (
            issubclass(kind, Strategy)
            and not inspect.isabstract(kind)
            and "strategy" not in inspect.signature(kind).parameters
        ):
            found.append(name)
    return sorted(found)


def build(
    name: str, parameters: Mapping[str, ConfigValue], devices: int, like: Strategy | None = None
) -> Strategy:
    """Make a strategy; raises RunFailed that names what is wrong and what there is instead.

    ``devices`` lowers Flower's minimum of two nodes for a smaller fleet. ``like`` is the app's own
    strategy, whose record keys and fractions are kept.
    """
    if name not in names():
        raise RunFailed(
            "strategy", f"There is no strategy {name!r}; there are {', '.join(names())}."
        )
    kind = getattr(stock, name)
    arguments: dict[str, Any] = {key: min(2, devices) for key in _MINIMUMS}
    arguments.update(
        {key: getattr(like, key) for key in _SHARED if like is not None and hasattr(like, key)}
    )
    known = {
        key: p for key, p in inspect.signature(kind).parameters.items() if key != "self"
    } or _inherited(kind)
    arguments.update(
        {check_parameter(name, known, key, value): value for key, value in parameters.items()}
    )
    try:
        return cast(Strategy, kind(**arguments))
    except (TypeError, ValueError) as error:
        raise RunFailed(
            "strategy", f"The strategy {name} refuses its parameters: {error}."
        ) from error


def adjust(strategy: Strategy, parameters: Mapping[str, ConfigValue]) -> None:
    """Change parameters of the app's own strategy in place; raises RunFailed for one it does not
    have.
    """
    known = inspect.signature(type(strategy)).parameters
    for key, value in parameters.items():
        check_parameter(type(strategy).__name__, known, key, value)
        setattr(strategy, key, value)


def foldable(strategy: Strategy) -> bool:
    """Whether cohorts may answer with one weighted mean: exactly the stock types, with stock
    metrics.
    """
    return type(strategy) in WEIGHTED_MEANS and averages_metrics(strategy)


def minimum_results(strategy: Strategy) -> int:
    """Valid updates without which a strategy's guarantee does not hold, or its code fails.

    Krum 2f + 3 (Blanchard et al. 2017, https://arxiv.org/abs/1703.02757), Bulyan 4f + 3
    (El Mhamdi et al. 2018, https://arxiv.org/abs/1802.07927); a trimmed mean must leave something.
    """
    malicious = int(getattr(strategy, "num_malicious_nodes", 0))
    if isinstance(strategy, Bulyan):
        return 4 * malicious + 3
    if isinstance(strategy, MultiKrum):
        return max(2 * malicious + 3 if malicious else 1, int(strategy.num_nodes_to_select))
    if isinstance(strategy, FedTrimmedAvg):
        return 2 if strategy.beta > 0 else 1
    return 1


def check_parameter(
    strategy: str, known: Mapping[str, inspect.Parameter], key: str, value: ConfigValue
) -> str:
    """Return ``key`` if the strategy takes it and the value's type fits; raises RunFailed
    otherwise.
    """
    if key not in known:
        raise RunFailed(
            "strategy",
            f"The strategy {strategy} has no parameter {key!r}; it has {', '.join(known)}."[:256],
        )
    default = known[key].default
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and not numeric:
        raise RunFailed(
            "strategy", f"The strategy {strategy} wants a number for {key!r}, not {value!r}."
        )
    if (
        isinstance(default, int)
        and not isinstance(default, bool)
        and not (numeric and float(value) == int(value))
    ):
        raise RunFailed(
            "strategy", f"The strategy {strategy} wants a whole number for {key!r}, not {value!r}."
        )
    return key


def _inherited(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.__init__).parameters
