"""The options of a federated step, and what its callback message carries for them."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.protocol.names import is_digest
from edge.training.app_bundle import FlowerApp, load_app
from pipelines.errors import UsageError
from pipelines.run.option import Option, encode
from pipelines.run.option_table import (
    PARAMETERS,
    STRATEGY_PREFIX,
    TABLE,
    RunOptions,
)
from pipelines.run.plan import plan
from pipelines.step.variables import Join, is_text, is_variable, json_object


@dataclass(frozen=True, kw_only=True)
class PublishedApp:
    """An app that is in the deployment's bucket already. Both may be pipeline variables."""

    digest: Any
    """SHA-256 of its files: ``FlowerApp.digest()``."""
    name: Any

    def __post_init__(self) -> None:
        """Raises UsageError for a digest that is none."""
        if not is_variable(self.digest) and not is_digest(str(self.digest)):
            raise UsageError(
                f"{self.digest!r} is not the digest of an app: give 64 hexadecimal digits, or the "
                "app's folder."
            )


App = FlowerApp | PublishedApp

_MAPPINGS = ("settings", "require", "run_config", "strategy_params")
_PARTS = {
    p.argument: entry.name for entry in TABLE if len(entry.parameters) > 1 for p in entry.parameters
}
"""Arguments that an option sets together with another, by which one: ``devices`` sets
``min_devices`` and ``max_devices``. A step takes them one by one as well.
"""
_LEAST = {"min_devices": 1, "max_devices": 0}
_ENTRIES = {entry.name: entry for entry in TABLE if entry.parameters[0].argument}
OPTIONS = (*_ENTRIES, *_PARTS)
"""What a federated step can be given."""
SIGNATURE = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in OPTIONS
)
"""The same for whoever completes or shows a call, such as a notebook."""


def app_of(app: str | Path | FlowerApp | PublishedApp) -> App:
    """An app by its folder. Raises AppError, which says what is wrong with it."""
    return load_app(Path(app)) if isinstance(app, str | Path) else app


def callback_arguments(app: App, options: Mapping[str, Any], join: Join) -> dict[str, Any]:
    """What the step's message carries, variables included.

    Options that are not given have the defaults of ``mledgeops run --cloud aws``. The parts of
    ``devices`` have 1 and 0, which is all.

    Raises:
        UsageError: An option is unknown, out of bounds, or does not go with the app.

    """
    given = {name: value for name, value in options.items() if value is not None}
    _check_names(given)
    literal = {name: value for name, value in given.items() if not is_variable(value)}
    for name, value in literal.items():
        _check_value(name, value)
    settings, strategy = _configuration(literal)
    arguments = {p.argument: p.default for p in PARAMETERS if p.argument}
    if isinstance(app, FlowerApp):
        said, settings = _said_by(app, literal, given, settings)
        arguments |= said
    else:
        arguments |= {"app": app.digest, "app_name": app.name}
    for name, value in given.items():
        if name not in literal or name not in _MAPPINGS:
            names = [p.argument for p in _ENTRIES[name].parameters] if name in _ENTRIES else [name]
            arguments |= dict.fromkeys(names, value if name not in literal else encode(value))
    objects = {"run_config": settings, "strategy_params": strategy}
    for name, values in {**objects, "require": literal.get("require", {})}.items():
        if name not in given or name in literal:
            arguments[name] = _json(app, name, values, join)
    return arguments


def _configuration(literal: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The app's settings and the strategy's parameters, given together or one by one."""
    if "settings" not in literal:
        return dict(literal.get("run_config", {})), dict(literal.get("strategy_params", {}))
    both = literal["settings"]
    strategy = {key: value for key, value in both.items() if key.startswith(STRATEGY_PREFIX)}
    settings = {key: value for key, value in both.items() if key not in strategy}
    return settings, {key.removeprefix(STRATEGY_PREFIX): value for key, value in strategy.items()}


def _said_by(
    app: FlowerApp, literal: Mapping[str, Any], given: Mapping[str, Any], settings: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the options against an app. Returns the arguments that the app fills in where none is
    given, and its settings with the number of rounds.
    """
    fields = {field.name for field in dataclasses.fields(RunOptions)} - {"settings"}
    options = RunOptions(**{name: value for name, value in literal.items() if name in fields})
    asked = any(name in given for name in ("devices", "min_devices", "max_devices"))
    made = plan(
        app,
        dataclasses.replace(
            options,
            # Whether the app has a setting is known now, whatever value a variable will give it.
            settings={
                k: app.config.get(k, 1) if is_variable(v) else v for k, v in settings.items()
            },
            rounds=options.rounds or int("rounds" in given),
            devices=options.devices or literal.get("min_devices", options.quorum if asked else 0),
        ),
    )
    said: dict[str, Any] = {"app": made.app_digest, "app_name": app.name, "fleet": made.fleet}
    if not asked:
        said |= {"min_devices": made.devices, "max_devices": made.devices}
    if is_variable(settings.get(app.rounds_key)):
        said["num_rounds"] = settings[app.rounds_key]
    elif made.rounds and ("rounds" not in given or "rounds" in literal):
        said["num_rounds"] = made.rounds
        settings = {**settings, app.rounds_key: made.rounds}
    return said, settings


def _check_names(given: Iterable[str]) -> None:
    names = set(given)
    for name in sorted(names):
        if name == "minimum_score":
            raise UsageError(
                "minimum_score is no option of a FederatedStep: compare its output `score` with "
                "the minimum in a ConditionStep of your pipeline."
            )
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1, cutoff=0.5)
            hint = f"the nearest is {near[0]!r}" if near else f"it has {', '.join(OPTIONS)}"
            raise UsageError(f"A FederatedStep has no option {name!r}: {hint}.")
        if _PARTS.get(name) in names:
            raise UsageError(f"{_PARTS[name]} sets {name} too: give one of them.")


def _check_value(name: str, value: Any) -> None:
    """Raises UsageError for a literal of another type or out of bounds."""
    if name in _MAPPINGS:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise UsageError(f"{name} is {value!r}; it must be a dict with names as its keys.")
        return
    kinds: tuple[type, ...] = (int,)
    entry: Option | None = _ENTRIES.get(name)
    if entry is not None:
        kinds = (int, float) if entry.kind is float else (entry.kind,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = {int: "a whole number", float: "a number", str: "a text"}[kinds[-1]]
        raise UsageError(f"{name} is {value!r}; it must be {wanted} or a pipeline variable.")
    if entry is not None:
        entry.check(value, called=name)
    elif isinstance(value, int) and value < _LEAST[name]:
        raise UsageError(
            f"{name} is {value}; it must be a whole number of at least {_LEAST[name]}."
        )


def _json(app: App, name: str, values: Mapping[str, Any], join: Join) -> Any:
    """A configuration as a JSON object. The app's own settings say which variables are texts."""
    config = app.config if isinstance(app, FlowerApp) and name == "run_config" else {}
    texts = [
        key for key, value in values.items() if is_text(value) or isinstance(config.get(key), str)
    ]
    return json_object(values, texts, join)
