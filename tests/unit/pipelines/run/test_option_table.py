"""One table of run options: all that is derived from it says the same."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import msgspec
import pytest
from support.paths import ROOT

from fl_runtime.run.spec import RunSpec
from pipelines.cli.commands.runs.flags import add_flags, options_of
from pipelines.errors import UsageError
from pipelines.run import option_table, plan, request
from pipelines.run.option import NOT_GIVEN, Option, encode, entries, option
from pipelines.run.option_table import PARAMETERS, TABLE, RunOptions, documentation

NOT_PARAMETERS = {"run", "pipeline_execution_arn", "created_at"}
"""Fields of a run's specification that the pipeline's parameters do not set."""


def spec_fields() -> dict[str, msgspec.inspect.Field]:
    return {field.name: field for field in msgspec.inspect.type_info(RunSpec).fields}


def test_the_runs_specification_has_the_tables_fields() -> None:
    arguments = [p.argument for p in PARAMETERS if p.argument]
    assert sorted(arguments) == sorted(set(spec_fields()) - NOT_PARAMETERS)


def test_the_runs_specification_has_the_pipelines_defaults() -> None:
    for p in PARAMETERS:
        field = spec_fields().get(p.argument)
        if field is None or field.required or p.name == "Experiment":  # named after the app
            continue
        given = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert encode(given) == p.default, p.name


def test_the_runs_specification_has_the_tables_bounds() -> None:
    for entry in TABLE:
        kind = getattr(spec_fields().get(entry.parameters[0].argument), "type", None)
        if entry.kind in (int, float) and kind is not None and entry.default is not None:
            # A parameter that is 0 by default says by that: not given.
            not_given = entry.least == 1 and entry.parameters[0].default == 0
            least = 0 if not_given else entry.least
            assert (kind.ge, kind.gt, kind.le) == (least, entry.above, entry.most), entry.name
        if entry.pattern:
            assert kind.pattern == f"^(|{entry.pattern})$", entry.name
        if entry.choices:
            allowed = {value for t in getattr(kind, "types", [kind]) for value in t.values}
            assert allowed == {"", *entry.choices}


def test_the_documented_table_is_the_generated_one() -> None:
    assert documentation() in (ROOT / "docs" / "architecture.md").read_text()


def test_names_parameters_and_flags_are_said_once() -> None:
    for names in (
        [p.name for p in PARAMETERS],
        [p.argument for p in PARAMETERS if p.argument],
        [entry.flag for entry in TABLE if entry.flag],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"devices": -1}, "--devices is -1; it must be a whole number of at least 1."),
        ({"rounds": 10_001}, "--rounds is 10001; it must be a whole number from 1 to 10,000."),
        ({"quorum": 0}, "--quorum is 0; it must be a whole number of at least 1."),
        ({"quorum_fraction": 1.5}, "--quorum-fraction is 1.5; it must be a number from 0 to 1."),
        ({"phase_seconds": 0.0}, "--phase-seconds is 0; it must be a number above 0 and at most"),
        ({"phase_seconds": float("nan")}, "--phase-seconds is nan"),
        ({"max_cost": float("inf")}, "--max-cost is inf; it must be a number of at least 0."),
        ({"goal": "sideways"}, "--goal is 'sideways'; it must be minimize or maximize."),
        ({"selection": "mine"}, "it must be random, least-seen or stratified:LABEL."),
        ({"require": {"power": "solar"}}, "it must be mains or battery."),
    ],
)
def test_a_value_out_of_bounds_is_refused_in_one_sentence(given: dict, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        RunOptions(**given)
    assert sentence in str(refused.value)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parser.parse_args(arguments)


def test_flags_become_options() -> None:
    options = options_of(
        parsed("--devices", "3", "--set", "lr=0.5", "--set", "strategy.eta=1", "--target", "0.9"),
        on_aws=False,
    )
    assert options == RunOptions(
        devices=3, settings={"lr": 0.5, "strategy.eta": 1}, target=0.9, deadline_seconds=300.0
    )
    assert (options.run_config(), options.strategy_params()) == ({"lr": 0.5}, {"eta": 1})


def test_a_flag_may_not_ask_for_the_default_by_a_value_out_of_bounds() -> None:
    with pytest.raises(UsageError, match="--devices is 0"):
        options_of(parsed("--devices", "0"), on_aws=False)


def test_the_deadline_is_five_minutes_locally_and_a_day_on_aws() -> None:
    assert options_of(parsed(), on_aws=False).deadline_seconds == 300.0
    assert options_of(parsed(), on_aws=True).deadline_seconds == 86_400.0
    given = parsed("--deadline-seconds", "7")
    assert options_of(given, on_aws=True).deadline_seconds == 7.0


class App:
    name, config, devices = "an_app", {"lr": 0.1}, 4
    rounds_key = "num-server-rounds"

    def digest(self) -> str:
        return "a" * 64


def test_adding_an_option_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry more, and its flag, its Python option, its parameter and its documentation exist."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class More(RunOptions):
        patience: int = option(
            default=0,
            least=0,
            unit="rounds",
            parameter="Patience",
            meaning="rounds without improvement before the run ends; 0: any",
            flag="--patience",
            help="end after so many rounds without improvement",
        )

    table = entries(More)
    parameters = (*option_table.APP_PARAMETERS, *(p for e in table for p in e.parameters))
    for module in (
        option_table,
        plan,
        __import__("pipelines.cli.commands.runs.flags", fromlist=["x"]),
    ):
        monkeypatch.setattr(module, "TABLE", table)
    monkeypatch.setattr("pipelines.cli.commands.runs.flags.RunOptions", More)

    options = options_of(parsed("--patience", "5"), on_aws=False)
    app: Any = App()
    values = plan.plan(app, options).parameters()
    assert values["Patience"] == 5
    assert set(values) == {p.name for p in parameters}
    assert (
        "| `Patience` | `--patience` | a whole number of at least 0, rounds | `0` | rounds without"
        in documentation()
    )
    with pytest.raises(UsageError, match="--patience is -1"):
        More(patience=-1)


def test_a_parameter_is_never_an_empty_text() -> None:
    assert [encode(value) for value in ("", None, {}, 0, 0.5, {"a": True})] == [
        NOT_GIVEN,
        NOT_GIVEN,
        "{}",
        0,
        0.5,
        '{"a":true}',
    ]


def test_an_entry_that_says_something_unknown_is_refused() -> None:
    field = option(default=1, parameter="P", meaning="m", colour="red")
    with pytest.raises(TypeError, match="colour"):
        field.metadata["option"]("name")
    assert isinstance(TABLE[0], Option)
    assert "require" in request.spec_of.__globals__["_JSON_OBJECTS"]
