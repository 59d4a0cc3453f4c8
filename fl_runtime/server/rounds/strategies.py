"""Flower's stock strategies by name, with their parameters checked before a run starts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, cast

import flwr.serverapp.strategy as stock
import numpy as np
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedTrimmedAvg,
    FedXgbCyclic,
    FedYogi,
    MultiKrum,
    Strategy,
)

from edge.protocol.messages import ConfigValue
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.grid.flower_compat import averages_metrics

WEIGHTED_MEANS = (FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad)
"""Strategies whose aggregation is, or starts with, a mean weighted by the example count."""
MINIMUM_PARAMETERS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
_KEPT_PARAMETERS = (
    "fraction_train",
    "fraction_evaluate",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
)


def stock_names() -> list[str]:
    """The stock strategies that can be made from plain parameters.

    Wrappers are not among them: they need another strategy.
    """
    return sorted(
        name
        for name, kind in inspect.getmembers(stock, inspect.isclass)
        if issubclass(kind, Strategy)
        and not inspect.isabstract(kind)
        and "strategy" not in inspect.signature(kind).parameters
    )


def build(
    name: str, parameters: Mapping[str, ConfigValue], devices: int, like: Strategy | None = None
) -> Strategy:
    """Make a stock strategy.

    Args:
        name: The strategy's class name.
        parameters: Arguments of its constructor.
        devices: Size of the fleet; lowers Flower's minimum of two nodes for a smaller one.
        like: The app's own strategy, whose fractions and record keys are kept.

    Raises:
        RunFailed: naming what is wrong and what there is instead.
    """
    if name not in stock_names():
        known_names = ", ".join(stock_names())
        raise RunFailed("strategy", f"There is no strategy {name!r}; there are {known_names}.")
    kind = getattr(stock, name)
    known = _constructor_parameters(kind)
    arguments: dict[str, Any] = {key: min(2, devices) for key in MINIMUM_PARAMETERS if key in known}
    for key in _KEPT_PARAMETERS:
        if key in known and like is not None and hasattr(like, key):
            arguments[key] = getattr(like, key)
    for key, value in parameters.items():
        check_parameter(name, known, key, value)
        arguments[key] = value
    try:
        made = cast(Strategy, kind(**arguments))
    except (TypeError, ValueError) as error:
        message = f"The strategy {name} refuses its parameters: {error}."
        raise RunFailed("strategy", message) from error
    for key in set(MINIMUM_PARAMETERS) - set(known):  # FedXgbCyclic sets these itself
        setattr(made, key, min(getattr(made, key), devices))
    return made


def adjust(strategy: Strategy, parameters: Mapping[str, ConfigValue]) -> None:
    """Change parameters of the app's own strategy in place; raises RunFailed for an unknown one."""
    known = parameters_of(type(strategy))
    for key, value in parameters.items():
        check_parameter(type(strategy).__name__, known, key, value)
        setattr(strategy, key, value)


def settings_of(strategy: Any) -> dict[str, ConfigValue]:
    """A strategy's name and its parameters that are plain values, as ``strategy`` and
    ``strategy.NAME``. A wrapper names the strategy that it wraps.
    """
    name, inner = type(strategy).__name__, getattr(strategy, "strategy", None)
    found: dict[str, ConfigValue] = {}
    if isinstance(inner, Strategy):
        found, name = settings_of(inner), f"{name}({type(inner).__name__})"
    for key in parameters_of(type(strategy)):
        value: Any = getattr(strategy, key, None)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool | int | float | str):
            found[f"strategy.{key}"] = value
    return {"strategy": name, **{k: v for k, v in found.items() if k != "strategy"}}


def foldable(strategy: Strategy) -> bool:
    """Whether cohorts may answer with one weighted mean, with exactly the same result.

    So for the stock types themselves with Flower's own metrics: a subclass may aggregate otherwise.
    """
    return type(strategy) in WEIGHTED_MEANS and averages_metrics(strategy)


def aggregates_itself(strategy: Strategy, kind: str) -> bool:
    """Whether the app's own code aggregates the replies of a kind, ``train`` or ``evaluate``: in
    the strategy, or in one that it wraps.
    """
    own = getattr(type(strategy), f"aggregate_{kind}")
    if not own.__module__.startswith("flwr."):
        return True
    wrapped = (value for value in vars(strategy).values() if isinstance(value, Strategy))
    return any(aggregates_itself(inner, kind) for inner in wrapped)


def averages_own_metrics(strategy: Strategy) -> bool:
    """Whether the app's own code averages the metrics of training."""
    function = getattr(strategy, "train_metrics_aggr_fn", None)
    return function is not None and not function.__module__.startswith("flwr.")


def chooses_by_order(strategy: Strategy) -> bool:
    """Whether a strategy asks devices in turn, so that no other may take the place of one."""
    return isinstance(strategy, FedXgbCyclic)


def minimum_nodes(strategy: Strategy) -> int:
    """Available devices below which a strategy does not start a round."""
    return max(getattr(strategy, name, 0) for name in MINIMUM_PARAMETERS)


def minimum_results(strategy: Strategy) -> int:
    """Valid updates without which a strategy's guarantee does not hold, or its code fails.

    With f malicious nodes, Krum needs 2f + 3 (Blanchard et al. 2017,
    https://arxiv.org/abs/1703.02757) and Bulyan 4f + 3 (El Mhamdi et al. 2018,
    https://arxiv.org/abs/1802.07927). A trimmed mean must have something left.
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
) -> None:
    """Raise RunFailed unless the strategy has the parameter and the value fits its default."""
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        meant = f"did you mean {near[0]!r}? It has" if near else "it has"
        raise RunFailed(
            "strategy",
            f"The strategy {strategy} has no parameter {key!r}; {meant} {', '.join(known)}.",
        )
    default = known[key].default
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    whole = numeric and float(value) == int(value)
    wants_whole = isinstance(default, int) and not isinstance(default, bool)
    if isinstance(default, float) and not numeric:
        wanted = "number"
    elif wants_whole and not whole:
        wanted = "whole number"
    else:
        return
    raise RunFailed(
        "strategy", f"The strategy {strategy} wants a {wanted} for {key!r}, not {value!r}."
    )


def parameters_of(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a strategy's constructor, with those that its ``**kwargs`` pass on."""
    found: dict[str, inspect.Parameter] = {}
    for cls in kind.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        own = list(inspect.signature(vars(cls)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def _constructor_parameters(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    # A class without a constructor of its own has the signature (self, *args, **kwargs).
    own = {key: p for key, p in inspect.signature(kind).parameters.items() if key != "self"}
    return own or inspect.signature(kind.__init__).parameters
