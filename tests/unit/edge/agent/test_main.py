"""The agent's command line: one sentence and an exit code when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from fakes.certificates import self_signed
from fakes.devices import device_config

from edge.agent.main import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("edge.logs.set_up", lambda: None)
    monkeypatch.setattr("sys.argv", ["mledgeops-agent", *arguments])
    return main()


def test_without_a_nucleus_the_agent_says_so(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_GG", "SVCUID", "AWS_IOT"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "edge.agent", "--greengrass", "--home", str(tmp_path)],
        env={**environment, "AWS_IOT_THING_NAME": "d"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "not a Greengrass component" in done.stderr.splitlines()[-1]


def test_a_bad_configuration_is_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_IOT_THING_NAME", raising=False)
    assert run(monkeypatch, "--greengrass", "--home", str(tmp_path)) == 2
    assert "AWS_IOT_THING_NAME is not set" in capsys.readouterr().err
    assert run(monkeypatch, str(tmp_path / "none.json")) == 2
    assert "cannot be read" in capsys.readouterr().err
    config = device_config(tmp_path, **self_signed(tmp_path))
    (tmp_path / "device.json").write_bytes(msgspec.json.encode(config))
    assert run(monkeypatch, str(tmp_path / "device.json"), "--trust", "{") == 2
    assert "trust.json is malformed" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["device.json", "--greengrass"]])
def test_a_file_or_greengrass_but_not_both(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, *arguments)
    assert left.value.code == 2
