"""``mledgeops new`` writes a whole app or nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from support.commands import asked, complaint

from edge.training.app_bundle import load_app
from pipelines.cli.commands.runs.new import new_app
from pipelines.starters import TEMPLATES, write_app


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_written_is_a_flower_app_with_a_metric(tmp_path: Path, template: str) -> None:
    said = asked("new", str(tmp_path / "press-wear"), "--template", template, home=tmp_path)
    assert str(tmp_path / "press-wear" / "press_wear" / "task.py") in said["files"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for path in said["files"]:
        text = Path(path).read_text()
        assert "{{" not in text and text.endswith("\n")
        if path.endswith(".py"):
            compile(text, path, "exec")
    app = load_app(tmp_path / "press-wear")
    assert (app.name, app.settings["metric"]) == ("press-wear", "rmse")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Press", "not a legal name"),
        ("press wear", "not a legal name"),
        ("../press--wear", "not a legal name"),
        ("a" * 41, "at most 40"),
        ("numpy", "Python knows 'numpy' already"),
        ("class", "Python knows 'class' already"),
        ("nowhere/press", "no folder"),
        ("taken", "exists already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "taken").mkdir()
    assert text in complaint("new", str(tmp_path / name), home=tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_the_answer_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "press-wear"
    asked_for = argparse.Namespace(folder=app, template="numpy", json=False)
    assert new_app(asked_for) == 0
    assert f"mledgeops run {app} --devices 4" in capsys.readouterr().out


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_app(tmp_path / "press", "numpy")
    assert list(tmp_path.iterdir()) == []
