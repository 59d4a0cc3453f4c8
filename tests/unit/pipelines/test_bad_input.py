"""Bad input at the command line: one clear sentence, the right exit code, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import mledgeops
from support.paths import APPS

from pipelines.local.cloud import LocalCloud
from pipelines.local.home import locked

DIGITS = str(APPS / "digits")


def bad_app(folder: Path, body: str, toml: str = "") -> str:
    (folder / "app" / "bad").mkdir(parents=True)
    (folder / "app" / "pyproject.toml").write_text(
        toml
        or '[project]\nname = "bad"\n[tool.flwr.app.components]\nclientapp = "bad.client:app"\n'
    )
    (folder / "app" / "bad" / "client.py").write_text(body)
    return str(folder / "app")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "/nowhere"], "no folder"),
        (["run", "docs"], "not a Flower app"),
        (["run"], "Give the folder of a Flower app"),
        (["run", DIGITS, "--devices", "0"], "--devices is 0"),
        (["run", DIGITS, "--rounds", "-3"], "--rounds is -3"),
        (["run", DIGITS, "--rounds", "many"], "invalid int"),
        (["run", DIGITS, "--devices-per-proxy", "-1"], "--devices-per-proxy is -1"),
        (["run", DIGITS, "--phase-seconds", "0"], "--phase-seconds"),
        (["run", DIGITS, "--goal", "sideways"], "--goal"),
        (["run", DIGITS, "--set", "nonsense"], "key=value"),
        (["run", DIGITS, "--set", "learning-rat=3"], "no setting 'learning-rat'"),
        (["run", DIGITS, "--fleet", "a/b"], "not a legal name"),
        (["run", DIGITS, "--cloud", "aws"], "AWS does not know who you are"),
        (["schedule", "add", "x", "--cron", "whenever", "--app", DIGITS], "not a cron"),
        (["schedule", "add", "x", "--cron", "0 3 1 * 1", "--app", DIGITS], "both a day"),
        (["approve", "1", "--reason", "x"], "no models"),
        (["dance"], "invalid choice"),
    ],
)
def test_bad_usage_is_answered_in_one_sentence(
    tmp_path: Path, arguments: list[str], text: str
) -> None:
    done = mledgeops(*arguments, home=tmp_path, check=2)
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cloud.json").exists()


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "File exists" in mledgeops("run", DIGITS, home=tmp_path / "file", check=2).stderr


@pytest.mark.parametrize(
    ("body", "extra", "text"),
    [
        ("import a_module_that_is_not_there", [], "a_module_that_is_not_there"),
        ("app = 1", [], "not a ClientApp"),
        ("def", [], "SyntaxError"),
        (
            "from flwr.clientapp import ClientApp\napp = ClientApp()",
            ["--strategy", "FedMagic"],
            "no strategy 'FedMagic'",
        ),
        (
            "from flwr.clientapp import ClientApp\napp = ClientApp()",
            ["--strategy", "FedAdam", "--set", "strategy.etta=1"],
            "no parameter 'etta'",
        ),
    ],
)
def test_an_app_that_cannot_run_is_refused_before_anything_starts(
    home: Path, cloud: LocalCloud, tmp_path: Path, body: str, extra: list[str], text: str
) -> None:
    done = mledgeops("run", bad_app(tmp_path, body), *extra, "--json", home=home, check=2)
    assert text in done.stderr
    assert json.loads(done.stdout)["status"] == "Failed"


def test_a_second_run_is_refused_while_one_runs(tmp_path: Path) -> None:
    with locked(tmp_path / "run.lock", "taken"):
        assert "A run is under way" in mledgeops("run", DIGITS, home=tmp_path, check=2).stderr
