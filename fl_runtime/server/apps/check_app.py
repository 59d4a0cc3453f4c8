"""``python -m fl_runtime.server.apps.check_app FOLDER STRATEGY PARAMETERS``: can this app run?

A process of its own, because checking imports the app's modules. It prints what the app uses of
Flower as JSON; when the app cannot run, it prints one sentence on standard error and exits with 2.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as stock
import msgspec
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from edge.protocol.messages import ConfigValue
from edge.training.app_bundle import AppError, FlowerApp, load_app
from edge.training.app_modules import load_component
from fl_runtime.run.errors import RunFailed
from fl_runtime.server.apps.app_source import START, Use, uses_of
from fl_runtime.server.apps.features import FEATURES
from fl_runtime.server.apps.server_app import server_app_of
from fl_runtime.server.grid.flower_compat import client_functions, uses_client_fn, uses_server_fn
from fl_runtime.server.rounds.strategies import build, check_parameter, parameters_of

STRATEGY_FEATURES = ("weighted-mean", "every-update", "trees", "privacy")
"""Features that are strategies of Flower's, by the names that an app gives."""


class FeatureUse(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that the app uses."""

    feature: str
    uses: str
    """The names by which it is used."""
    where: str
    """FILE:LINE of the first; empty when it shows only in what was imported."""
    runs: str
    """How it runs here."""


class AppDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What an app is, and what it uses of Flower."""

    app: str
    version: str
    devices: int
    rounds_key: str
    """The setting that ``--rounds`` sets; empty: the app has none."""
    ends_with: str
    """``model``, ``analysis``, or ``either`` where only the run can tell."""
    features: list[FeatureUse]
    notices: list[str] = []
    """What the app says that has no effect here."""


def check(folder: Path, strategy: str, parameters: Mapping[str, ConfigValue]) -> AppDescription:
    """Import both components and build the strategy; raises AppError or RunFailed."""
    if strategy:
        build(strategy, parameters, devices=2)
    app = load_app(folder)
    client: ClientApp = load_component(app.folder, app.client_app, ClientApp)
    server = server_app_of(app)
    if not strategy:
        _check_own_strategy(app, parameters)
    return describe(app, client, server)


def describe(app: FlowerApp, client: ClientApp, server: ServerApp) -> AppDescription:
    """What the app uses, from its source and from what it registers."""
    uses = [*uses_of(app.files(), app.folder), *_registered(app, client, server)]
    by_feature: dict[str, list[Use]] = {}
    for use in uses:
        by_feature.setdefault(use.feature, []).append(use)
    functions = client_functions(client)
    return AppDescription(
        app=app.name,
        version=app.version,
        devices=app.devices,
        rounds_key=app.rounds_key,
        ends_with=_ends_with(by_feature.keys(), functions),
        features=[_feature(key, by_feature[key]) for key in FEATURES if key in by_feature],
        notices=_notices(app),
    )


def _check_own_strategy(app: FlowerApp, parameters: Mapping[str, ConfigValue]) -> None:
    """Raise RunFailed for a parameter that no strategy of the app has, as its source names them.

    A strategy that only the run makes is checked when it starts.
    """
    uses = uses_of(app.files(), app.folder) if parameters else []
    named = {use.what for use in uses if use.feature in STRATEGY_FEATURES}
    own = {use.what for use in uses if use.feature == "own-strategy"}
    kinds = [getattr(stock, name) for name in sorted(named) if hasattr(stock, name)]
    kinds += [kind for kind in _subclasses(stock.Strategy) if kind.__name__ in own]
    if not app.server_app:
        kinds = [stock.FedAvg]
    for key, value in parameters.items():
        refused = [_refusal(kind, key, value) for kind in kinds]
        if refused and all(refused):
            raise next(error for error in refused if error)


def _refusal(kind: type[Any], key: str, value: ConfigValue) -> RunFailed | None:
    try:
        check_parameter(kind.__name__, parameters_of(kind), key, value)
    except RunFailed as error:
        return error
    return None


def _subclasses(kind: type[Any]) -> list[type[Any]]:
    own = [*kind.__subclasses__()]
    return [*own, *(below for one in own for below in _subclasses(one))]


def _notices(app: FlowerApp) -> list[str]:
    if not app.federations:
        return []
    return [
        f"[tool.flwr.federations] in {app.folder.name}/pyproject.toml has no effect here "
        f"({', '.join(app.federations)}): the run's devices are the fleet's, and --devices or "
        "num-devices under [tool.flwr.app.config] says how many take part."
    ]


def _registered(app: FlowerApp, client: ClientApp, server: ServerApp) -> list[Use]:
    """What shows in the imported components."""
    found = []
    if not app.server_app:
        found.append(("no-server", "FedAvg"))
    elif uses_server_fn(server):
        found.append(("server-fn", "server_fn"))
    if uses_client_fn(client):
        found.append(("client-fn", "client_fn"))
    for name in client_functions(client):
        category, _, action = name.partition(".")
        if category == "query":
            found.append(("query", name))
        if action != "default":
            found.append(("actions", name))
    return [Use(feature, what, "", 0) for feature, what in found]


def _ends_with(features: Collection[str], functions: Sequence[str]) -> str:
    if {"no-server", "server-fn", "workflow"} & set(features):
        return "model"
    if START in features and "own-start" not in features:
        return "model"
    # Whoever sends arrays for training or evaluation has a model.
    trains = any(name.partition(".")[0] in ("train", "evaluate") for name in functions)
    return "either" if trains else "analysis"


def _feature(key: str, uses: Sequence[Use]) -> FeatureUse:
    first = next((use for use in uses if use.file), None)
    return FeatureUse(
        feature=FEATURES[key].name,
        uses=", ".join(dict.fromkeys(use.what for use in uses)),
        where=f"{first.file}:{first.line}" if first else "",
        runs=FEATURES[key].runs,
    )


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when the app can run, 2 when it cannot."""
    folder, strategy, parameters = arguments
    try:
        # The app's modules may print: standard output is for the answer.
        with contextlib.redirect_stdout(sys.stderr):
            description = check(Path(folder), strategy, msgspec.json.decode(parameters))
    except (AppError, RunFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # A line of its own: the app's modules may have written to the file descriptor.
    sys.stdout.write(f"\n{msgspec.json.encode(description).decode()}\n")
    return 0


if __name__ == "__main__":
    # The caller shows our one sentence, and not what libraries log.
    logging.disable()
    sys.exit(main(sys.argv[1:4]))
