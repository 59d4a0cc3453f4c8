"""A plan resolves what the app says, and is what the pipeline is started with."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import UsageError
from pipelines.run.option_table import PARAMETERS, RunOptions
from pipelines.run.plan import parse_settings, plan


class App:
    """What a plan needs of a Flower app."""

    def __init__(
        self, name: str = "wind_farm", rounds_key: str = "num-server-rounds", **config: Any
    ) -> None:
        self.name, self.config, self.devices = name, {"learning-rate": 0.1, **config}, 4
        self.rounds_key = rounds_key

    def digest(self) -> str:
        return "a" * 64


def planned(app: Any = None, **options: Any) -> Any:
    return plan(app or App(), RunOptions(**options))


def test_a_plan_takes_from_the_app_what_is_not_given() -> None:
    made = planned(App(**{"num-server-rounds": 7}))
    assert (made.rounds, made.devices, made.fleet) == (7, 4, "wind-farm")
    assert planned().rounds == 3
    assert planned(settings={"num-server-rounds": 5}).rounds == 5
    values = planned(rounds=2, devices=9, fleet="north").parameters()
    assert (values["NumRounds"], values["Fleet"]) == (2, "north")
    assert (values["MinDevices"], values["MaxDevices"]) == (9, 9)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("learning-rat", "mean 'learning-rate'"), ("num-supernodes", "--devices says how many")],
)
def test_an_unknown_setting_is_refused_with_what_was_meant(key: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no setting '{key}'; .*{hint}"):
        planned(settings={key: 1})


def test_a_plan_gives_every_parameter_a_value_that_sagemaker_takes() -> None:
    made = planned(settings={"learning-rate": 0.5, "strategy.eta": 0.1}, target=0.9)
    values = made.parameters()
    assert set(values) == {p.name for p in PARAMETERS}
    assert all(value != "" for value in values.values())
    assert values["RunConfig"] == '{"learning-rate":0.5,"num-server-rounds":3}'
    assert values["StrategyParameters"] == '{"eta":0.1}'
    assert (values["Target"], values["Strategy"]) == ("0.9", "-")


def test_rounds_are_a_setting_of_the_app_and_refused_where_it_has_none() -> None:
    own = App(rounds_key="num-rounds", **{"num-rounds": 4})
    assert planned(own).rounds == 4
    assert planned(own, rounds=6).parameters()["RunConfig"] == '{"num-rounds":6}'
    fixed = App(rounds_key="")
    assert planned(fixed).rounds == 0
    values = planned(fixed).parameters()
    assert (values["NumRounds"], values["RunConfig"]) == (0, "{}")
    with pytest.raises(UsageError, match="setting num-server-rounds, which wind_farm does not"):
        planned(fixed, rounds=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"settings": {"learning-rat": 1}}, "no setting 'learning-rat'; it has learning-rate"),
        ({"fleet": "a/b"}, "not a legal name"),
        ({"quorum": 9}, "the run has 4 devices"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        planned(**options)


def test_settings_too_long_for_a_parameter_are_refused() -> None:
    with pytest.raises(UsageError, match="SageMaker allows 1024"):
        planned(settings={"learning-rate": "x" * 1100}).parameters()


def test_settings_are_read_as_toml_else_as_text() -> None:
    assert parse_settings(["a=1", "b = true", "c=x y", "d=[1]", "e=1e-3"]) == {
        "a": 1,
        "b": True,
        "c": "x y",
        "d": "[1]",
        "e": 0.001,
    }
    with pytest.raises(UsageError, match="--require 'x' is not of the form key=value"):
        parse_settings(["x"], "--require")
