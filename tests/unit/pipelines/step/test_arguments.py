"""What a federated step may be given, and what its message then carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.apps import write_app

from edge.training.app_bundle import FlowerApp
from fl_runtime.run.errors import RunFailed
from pipelines.errors import UsageError
from pipelines.local.sagemaker.definitions.values import Scope
from pipelines.run.option_table import PARAMETERS, RunOptions
from pipelines.run.plan import plan
from pipelines.run.request import CallbackMessage, spec_of
from pipelines.step.arguments import OPTIONS, PublishedApp, app_of, callback_arguments
from pipelines.step.variables import plain_join

PUBLISHED = PublishedApp(digest="a" * 64, name="wind_farm")
ROUNDS = {"Get": "Parameters.Rounds"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FlowerApp:
    return write_app(tmp_path_factory.mktemp("apps") / "turbine_hall")


def arguments(app: Any, **options: Any) -> dict[str, Any]:
    return callback_arguments(app, options, plain_join)


def spec(found: dict[str, Any], **parameters: Any) -> Any:
    """The run that dispatch makes of a step's message."""
    sent = Scope(parameters, "arn/execution/1", "p").resolve(found)
    message = CallbackMessage(token="Tok1234567", pipeline_execution_arn="arn", arguments=sent)
    return spec_of(message, 1.0)


def test_a_step_without_options_asks_for_what_a_run_on_aws_does(app: FlowerApp) -> None:
    made = plan(app, RunOptions(deadline_seconds=86_400.0)).parameters()
    assert arguments(app) == {p.argument: made[p.name] for p in PARAMETERS if p.argument}


def test_options_of_the_run_make_the_same_run_as_on_the_command_line(app: FlowerApp) -> None:
    options: dict[str, Any] = {
        "devices": 5,
        "rounds": 7,
        "strategy": "FedAdam",
        "settings": {"strategy.eta": 0.1},
        "quorum": 3,
        "target": 0.5,
        "require": {"power": "mains"},
        "fleet": "park",
    }
    made = plan(app, RunOptions(**options, deadline_seconds=86_400.0)).parameters()
    by_command = {p.argument: made[p.name] for p in PARAMETERS if p.argument}
    assert spec(arguments(app, **options)) == spec(by_command)


def test_parameters_reach_the_run_with_the_values_of_the_execution(app: FlowerApp) -> None:
    found = arguments(app, rounds=ROUNDS, fleet={"Get": "Parameters.Farm"}, devices=ROUNDS)
    run = spec(found, Rounds=4, Farm="north")
    assert (run.num_rounds, run.fleet, run.min_devices, run.max_devices) == (4, "north", 4, 4)
    assert run.run_config == {}, "the server writes the number into the app's setting"


def test_a_setting_may_be_a_parameter_too(app: FlowerApp) -> None:
    found = arguments(
        app,
        settings={"num-server-rounds": ROUNDS, "strategy.eta": {"Get": "Parameters.Eta"}},
    )
    run = spec(found, Rounds=4, Eta=0.5)
    assert run.strategy_params == {"eta": 0.5}
    assert (run.num_rounds, run.run_config) == (4, {"num-server-rounds": 4})


def test_devices_can_be_given_in_parts(app: FlowerApp) -> None:
    run = spec(arguments(app, min_devices=2))
    assert (run.min_devices, run.max_devices) == (2, 0), "at least two, and all there are"
    run = spec(arguments(app, min_devices=2, max_devices=9, strategy_params={"eta": 1}))
    assert (run.min_devices, run.max_devices, run.strategy_params) == (2, 9, {"eta": 1})


def test_a_published_app_needs_no_folder() -> None:
    run = spec(arguments(PUBLISHED, devices=2, settings={"rate": 0.1, "name": "x"}))
    assert (run.app, run.app_name, run.run_config) == (
        "a" * 64,
        "wind_farm",
        {"rate": 0.1, "name": "x"},
    )
    assert run.deadline_seconds == 86_400.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"round": 3}, "has no option 'round': the nearest is 'rounds'"),
        ({"num_rounds": 3}, "has no option 'num_rounds': the nearest is 'rounds'"),
        ({"fleets": "x"}, "the nearest is 'fleet'"),
        ({"zzz": 1}, "has no option 'zzz': it has devices, rounds"),
        ({"minimum_score": 0.5}, "compare its output `score` with the minimum in a ConditionStep"),
        ({"devices": 2, "min_devices": 1}, "devices sets min_devices too: give one of them"),
        ({"settings": {}, "run_config": {}}, "settings sets run_config too"),
        ({"rounds": "3"}, "rounds is '3'; it must be a whole number or a pipeline variable"),
        ({"rounds": True}, "rounds is True; it must be a whole number"),
        ({"rounds": 0}, "rounds is 0; it must be a whole number from 1 to 10,000"),
        ({"min_devices": 0}, "min_devices is 0; it must be a whole number of at least 1"),
        ({"max_devices": -1}, "max_devices is -1; it must be a whole number of at least 0"),
        ({"phase_seconds": -1.0}, "phase_seconds is -1; it must be a number above 0"),
        ({"goal": "best"}, "goal is 'best'; it must be minimize or maximize"),
        ({"settings": 3}, "settings is 3; it must be a dict"),
        ({"settings": {"rate": 1}}, "has no setting 'rate'; it has num-server-rounds"),
        ({"settings": {"rate": ROUNDS}}, "has no setting 'rate'"),
        ({"devices": 2, "quorum": 3}, "no round could reach it"),
        ({"fleet": "a/b"}, "fleet"),
    ],
)
def test_a_wrong_option_is_refused_when_the_step_is_built(
    app: FlowerApp, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as error:
        arguments(app, **options)
    assert sentence in str(error.value)


def test_requirements_are_checked_with_the_rest(app: FlowerApp) -> None:
    with pytest.raises((UsageError, RunFailed), match="idle"):
        arguments(app, require={"idle": "perhaps"})


def test_an_app_is_its_folder_or_its_digest(app: FlowerApp, tmp_path: Path) -> None:
    assert app_of(app.folder) == app
    assert app_of(PUBLISHED) is PUBLISHED
    with pytest.raises(UsageError, match="'abc' is not the digest of an app"):
        PublishedApp(digest="abc", name="x")


def test_every_argument_of_a_run_can_be_given() -> None:
    """One option or part for each of the callback's arguments but the app's own two."""
    given = {name: ROUNDS for name in OPTIONS if name not in ("devices", "settings")}
    found = arguments(PublishedApp(digest=ROUNDS, name=ROUNDS), **given)
    assert {name for name, value in found.items() if value != ROUNDS} == set()
    assert json.dumps(found)
