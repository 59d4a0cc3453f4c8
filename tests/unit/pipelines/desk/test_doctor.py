"""``mledgeops doctor`` tells each thing that would stop a run, with what mends it."""

from __future__ import annotations

import json
import shutil
import socket
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from support.commands import asked

from pipelines.cli.commands.operate.doctor import findings_text
from pipelines.desk import doctor
from pipelines.desk.doctor import Symptom, looked_at
from pipelines.local.home import Home
from pipelines.local.processes import port_in_use

Usage = namedtuple("Usage", "total used free")  # as shutil's


def found(home: Path, *options: str) -> dict[str, dict[str, str]]:
    """What the command finds, by name."""
    said = asked("doctor", *options, home=home)
    return {finding["what"]: finding for finding in said["findings"]}


def test_a_fresh_machine_is_well(tmp_path: Path) -> None:
    home = tmp_path / "home"
    looked = found(home)
    assert {finding["level"] for finding in looked.values()} <= {"ok", "warning"}
    assert "a run starts one" in looked["local cloud"]["says"]
    assert not home.exists(), "to look writes nothing"


@pytest.mark.parametrize(
    ("free", "level"), [(100 << 20, "failure"), (1 << 30, "warning"), (3 << 30, "ok")]
)
def test_a_full_disk_is_told_with_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free))
    disk = next(f for f in doctor.environment(Home(tmp_path)) if f.what == "disk")
    assert (disk.level, bool(disk.mend)) == (level, level != "ok")


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["numpy==0.1", "nothing-like-it>=1", "x; extra == 'y'"]
    )
    packages = next(f for f in doctor.environment(Home(Path())) if f.what == "packages")
    assert packages.level == "failure"
    assert "numpy" in packages.says and "nothing-like-it is missing" in packages.says
    assert " x " not in packages.says and "requirements.lock" in packages.mend


def test_what_a_dead_cloud_left_and_a_damaged_database_are_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.executions.mkdir(parents=True)
    execution = {"arn": "arn:aws:sagemaker:x:1:pipeline/p/execution/e", "status": "Executing"}
    (home.executions / "e.json").write_text(json.dumps(execution))
    home.mlflow_file.write_bytes(b"no database" * 100)
    looked = {finding.what: finding for finding in doctor.local_cloud(home)}
    assert looked["runs"].level == "warning" and looked["runs"].mend == "mledgeops reconcile"
    assert looked["MLflow"].level == "failure" and "mlflow.db" in looked["MLflow"].says


def test_a_port_answers_or_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_in_use(port)
    assert not port_in_use(port)


def test_what_a_look_raises_is_a_finding() -> None:
    def look() -> object:
        yield Symptom("ok", "first", "fine")
        raise ConnectionError("no route")

    first, second = looked_at("AWS", "sign in", look)
    assert first.level == "ok"
    assert second == Symptom("failure", "AWS", "ConnectionError: no route", "sign in")
    assert "-> sign in" in findings_text([first, second])
