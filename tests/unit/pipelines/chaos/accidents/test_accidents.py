"""Accidents of a user: what counts as well ended, and what the accidents do to files."""

from __future__ import annotations

import random
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.chaos.accidents import checks, shell
from pipelines.chaos.accidents.accident import Scene
from pipelines.chaos.accidents.catalogue import ACCIDENTS, damaged, fill
from pipelines.chaos.accidents.checks import all_ended, known_runs, nothing_left, told, works_again
from pipelines.chaos.accidents.shell import Said, Shell, UserCommand
from pipelines.chaos.mounts import NOT_ALLOWED, small_disk
from pipelines.chaos.slowness import Slowness
from pipelines.local.home import CloudInfo, Home

SENTENCE = "mledgeops: MLflow's database is damaged."


def said(code: int, complaint: str = "", **document: Any) -> Said:
    return Said(code=code, document=document, complaint=complaint, seconds=1.0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    slowness = Slowness()
    slowness._measure()
    return Scene(tmp_path, random.Random(1), slowness)


class Answers:
    """A shell whose commands say what a test gives."""

    def __init__(self, home: Home, *answers: Said) -> None:
        self.home, self.answers, self.left = home, list(answers), []

    def run(self, *_: str) -> Said:
        return self.answers.pop(0)

    def processes(self) -> list:
        return self.left


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (said(2, SENTENCE), ""),
        (said(0, ""), ""),
        (said(1, reason="it is damaged"), ""),
        (said(-9, ""), "ended with -9"),
        (said(130, ""), "ended with 130"),
        (said(1, "Traceback (most recent call last)"), "a traceback"),
        (said(1, "KeyError: x. This is a bug in MLEdgeOps;"), "a traceback"),
        (said(2, "mledgeops: no."), "does not say 'damaged'"),
    ],
)
def test_a_command_ends_with_a_known_code_and_a_sentence(end: Said, fault: str) -> None:
    found = list(told(end, (0, 1, 2), "damaged"))
    assert len(found) == bool(fault)
    assert fault in "".join(found)


def test_what_is_left_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "GONE_SECONDS", 0.0)
    monkeypatch.setattr("time.sleep", lambda _: None)
    here: Any = Answers(Home(scene.folder))
    assert list(nothing_left(scene, here, None)) == []
    here.left = [type("Process", (), {"pid": 7})]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        info = CloudInfo(pid=1, gateway_port=port, mqtt_port=1, sagemaker_port=1, started_at=0.0)
        found = list(nothing_left(scene, here, info))
    assert found == ["1 processes are left, such as 7", f"the ports [{port}] are in use"]


def test_runs_without_an_end_and_runs_that_are_lost_are_named(tmp_path: Path) -> None:
    rows = [
        {"run_id": "run-1", "status": "Running", "rounds": 3},
        {"run_id": "run-2", "status": "Failed", "rounds": 0},
    ]
    here: Any = Answers(Home(tmp_path), said(0, runs=rows), said(0, runs=rows))
    assert known_runs(here) == ["run-1", "run-2"]
    assert list(all_ended(here, ["run-2", "run-3"])) == [
        "run-1 is Running though nothing is under way",
        "the runs ['run-3'] are not listed any more",
    ]


def test_a_run_that_fails_after_the_accident_is_named(tmp_path: Path) -> None:
    here: Any = Answers(Home(tmp_path), said(0, status="Succeeded"), said(1, status="Failed"))
    assert list(works_again(here)) == []
    assert "a run afterwards is Failed" in list(works_again(here))[-1]


def test_a_home_on_a_disk_that_cannot_be_mounted_is_skipped_with_a_sentence(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.chaos.mounts.command", lambda *_: NOT_ALLOWED)
    assert list(ACCIDENTS["home-full"](scene)) == []
    assert scene.skipped
    assert NOT_ALLOWED in scene.notes[0]


def test_a_filled_disk_has_no_room_for_a_byte_and_then_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1) as refused:
        if refused:
            pytest.skip(f"a file system cannot be mounted here: {refused}")
        fill(tmp_path / "small" / "filling")
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "small" / "more").write_bytes(b"x")
        (tmp_path / "small" / "filling").unlink()
        (tmp_path / "small" / "more").write_bytes(b"x")


def test_a_damaged_file_can_be_put_back(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content" * 10_000)
    before = damaged(file)
    assert before == b"content" * 10_000
    assert file.read_bytes()[:8192] == bytes(8192)
    assert file.read_bytes()[8192:] == before[8192:]


def test_a_command_is_interrupted_and_its_words_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program in the place of the command line, which takes a second to import."""
    program = (
        "import json, os, sys, time\n"
        "print(json.dumps({'home': os.environ['MLEDGEOPS_HOME']}), flush=True)\n"
        "assert 'AWS_ENDPOINT_URL' not in os.environ\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit('stopped')"
    )
    monkeypatch.setattr(shell, "_ENTRY", program)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://the-suites-own-cloud")
    here = Shell(Home(tmp_path / "home"))
    command = here.start("--json")
    try:
        while b"home" not in (tmp_path / "home.out").read_bytes():
            assert command.is_running()
        assert [process.pid for process in here.processes()] == [command.pid]
        command.press_ctrl_c()
        ended = command.said(10.0)
    finally:
        command.said(0.0)
    assert (ended.code, ended.document) == (1, {"home": str(tmp_path / "home")})
    assert "stopped" in ended.complaint
    assert here.processes() == []


def test_a_command_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_ENTRY", "import time; time.sleep(60)")
    assert UserCommand(Home(tmp_path / "home"), ()).said(0.1).code == -signal.SIGKILL
