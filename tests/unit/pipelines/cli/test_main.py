"""The command line: bad usage in one sentence, errors as JSON, empty lists, exit codes."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import complaint
from support.paths import APPS, ROOT

from edge.errors import MLEdgeOpsError
from pipelines.cli.catalogue import COMMANDS, PACKAGE
from pipelines.cli.commands.runs import history
from pipelines.cli.main import INTERRUPTED, main
from pipelines.errors import UsageError
from pipelines.local.home import Home, locked

PACKAGES = ROOT / "pipelines" / "cli" / "commands"
DIGITS = str(APPS / "digits")


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
        (["run", DIGITS, "--resume", "run-1"], "leave the app out"),
        (["run", "--resume", "run-1", "--seed", "3"], "leave --seed out"),
        (["schedule", "add", "x", "--cron", "whenever", "--app", DIGITS], "not a cron"),
        (["schedule", "add", "x", "--cron", "0 3 1 * 1", "--app", DIGITS], "both a day"),
        (["schedule", "add", "a/b", "--cron", "0 3 * * *", "--app", DIGITS], "schedule's name"),
        (["approve", "1", "--reason", "x"], "no models"),
        (["show", "run-1"], "There is no run"),
        (["show", "a b"], "not a run's id"),
        (["logs", "run-1"], "no logs"),
        (["logs", "run-1", "--level", "loud"], "invalid choice"),
        (["stop", "run-1"], "not under way"),
        (["chaos", "--only", "nothing"], "no fault 'nothing'"),
        (["chaos", "--only", "s3-gone", "--only", "ctrl-c"], "ctrl-c has no other fault beside it"),
        (["chaos", "--seeds", "0"], "--seeds is 0"),
        (["bench", "--app", "/nowhere"], "no app at /nowhere"),
        (["bench", "--only", "nothing"], "no part 'nothing'"),
        (["local", "up", "--devices", "3"], "--devices needs --app"),
        (["local", "down"], "No local cloud is running"),
        (["deploy", "--rehearse", "mars-1"], "AWS has no region 'mars-1'"),
        (["deploy", "--plan", "--set", "x"], "not PARAMETER=VALUE"),
        (["dance"], "no command 'dance'"),
    ],
)
def test_bad_usage_is_answered_in_one_sentence(
    tmp_path: Path, arguments: list[str], text: str
) -> None:
    said = complaint(*arguments, home=tmp_path)
    assert text in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "cloud.json").exists()


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in complaint("run", DIGITS, home=tmp_path / "file")


def test_a_second_run_is_refused_while_one_runs(tmp_path: Path) -> None:
    with locked(Home(tmp_path).fleet_turn("digits"), "taken"):
        said = complaint("run", DIGITS, home=tmp_path)
    assert "A run is under way on fleet digits" in said
    assert "--queue" in said


@pytest.mark.parametrize(
    ("command", "text", "key"),
    [
        ("runs", "no runs yet", "runs"),
        ("models", "no models yet", "models"),
        ("audit", "nothing was decided", "entries"),
        ("rollout", "no rollout yet", "rollouts"),
    ],
)
def test_an_empty_list_is_no_error_and_starts_no_cloud(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    text: str,
    key: str,
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([command]) == 0
    assert text in capsys.readouterr().out
    assert main([command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[key] == []
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mledgeops 0.")


@pytest.mark.parametrize(
    "arguments",
    [["runs"], ["show", "run-1"], ["logs", "run-1"], ["stop", "run-1"], ["models"], ["card", "1"]],
)
def test_every_command_about_runs_and_models_obeys_the_chosen_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert "No AWS region" in complaint(*arguments, "--cloud", "aws", home=tmp_path)
    monkeypatch.setenv("MLEDGEOPS_CLOUD", "aws")
    assert "No AWS region" in complaint(*arguments, home=tmp_path)
    monkeypatch.setenv("MLEDGEOPS_CLOUD", "moon")
    assert "must be local or aws" in complaint(*arguments, home=tmp_path)


class Failed(MLEdgeOpsError):
    exit_code = 1
    code = "test-failed"


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A command line with one command, which raises."""

    def work(_: object) -> int:
        raise error

    monkeypatch.setattr(history, "list_runs", work)
    return lambda *options: main(["runs", *options])


@pytest.mark.parametrize(
    ("error", "code", "exit_code", "reason"),
    [
        (Failed("it failed."), "test-failed", 1, "it failed."),
        (UsageError("wrong."), "usage", 2, "wrong."),
        (FileExistsError(17, "File exists", "/x"), "file", 2, "/x: File exists."),
        (ValueError("oops"), "internal", 1, "ValueError: oops. This is a bug in MLEdgeOps"),
        (OSError("oops"), "internal", 1, "OSError: oops"),
    ],
)
def test_an_error_gives_its_class_exit_code_and_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: str,
    exit_code: int,
    reason: str,
) -> None:
    command = failing(error, monkeypatch)
    assert command("--json") == exit_code
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["status"], document["code"]) == ("Failed", code)
    assert document["reason"].startswith(reason)
    assert said.err.startswith(f"mledgeops: {reason}")
    assert command() == exit_code
    assert capsys.readouterr().out == ""


def test_ctrl_c_ends_with_the_shells_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(KeyboardInterrupt(), monkeypatch)() == INTERRUPTED


def test_a_bug_is_raised_where_somebody_debugs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLEDGEOPS_DEBUG", "1")
    with pytest.raises(ValueError, match="oops"):
        failing(ValueError("oops"), monkeypatch)()


@pytest.mark.parametrize("module", sorted({entry.module for entry in COMMANDS.values()}))
def test_a_module_declares_the_commands_that_the_catalogue_has_of_it(module: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"{PACKAGE}.{module}").add_parser(commands)
    assert set(commands.choices) == {e.name for e in COMMANDS.values() if e.module == module}


def test_every_module_of_commands_is_in_the_catalogue() -> None:
    declaring = {
        ".".join(path.relative_to(PACKAGES).with_suffix("").parts)
        for path in PACKAGES.rglob("*.py")
        if "\ndef add_parser(" in path.read_text()
    }
    assert declaring == {entry.module for entry in COMMANDS.values()}


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from pipelines.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: assert not any(m.startswith(('boto3', 'pipelines.cli.commands', 'msgspec')) "
        "for m in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for entry in COMMANDS.values():
        assert f"  {entry.name} " in done.stdout and entry.help in done.stdout


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("apporve", "no command 'apporve': did you mean `approve`?"),
        ("zzz", "no command 'zzz'. See"),
    ],
)
def test_a_misspelt_command_is_told_the_nearest(given: str, text: str, tmp_path: Path) -> None:
    assert text in complaint(given, home=tmp_path)
