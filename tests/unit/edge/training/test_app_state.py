"""An app's state on the disk: whole, bounded, and gone when nobody needs it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge.protocol.errors import ProtocolError
from edge.protocol.records import Records
from edge.training import app_state
from edge.training.app_state import (
    KEPT_SECONDS,
    KEPT_STATES,
    StoredState,
    state_file,
    sweep_states,
)

STATE = Records(arrays={"model": {"w": np.arange(3.0)}}, configs={"seen": {"names": ["a"]}})


def test_a_state_is_found_again_and_written_only_when_it_changed(tmp_path: Path) -> None:
    file = state_file(tmp_path / "state", "run", "a" * 64)
    mine = StoredState(file)
    assert mine.load() == Records()
    mine.save(STATE)
    written, mode = file.stat().st_ino, file.stat().st_mode & 0o777
    mine.save(STATE)
    assert (file.stat().st_ino, mode) == (written, 0o600)
    another = StoredState(file)
    found = another.load()
    assert found.arrays["model"]["w"].tolist() == [0.0, 1.0, 2.0]
    assert found.configs == STATE.configs
    another.save(Records(metrics={"n": {"n": 1}}))
    assert (mine.is_current(), another.is_current()) == (False, True)
    another.save(Records())
    assert not file.exists()
    assert another.is_current()


def test_a_state_has_a_limit_and_the_stored_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StoredState(tmp_path / "x.state")
    state.save(STATE)
    monkeypatch.setattr(app_state, "STATE_LIMIT", 100)
    with pytest.raises(ProtocolError, match=r"context\.state has \d+ bytes; .* at most 100"):
        state.save(Records(arrays={"model": {"w": np.zeros(100)}}))
    assert StoredState(tmp_path / "x.state").load().names() == STATE.names()


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProtocolError, match=r"context\.state cannot be stored"):
        StoredState(tmp_path / "file" / "x.state").save(STATE)


def test_a_damaged_state_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.state").write_bytes(b"torn")
    assert StoredState(tmp_path / "x.state").load() == Records()
    assert "is damaged" in capsys.readouterr().err


def test_old_states_go_and_the_newest_stay(tmp_path: Path) -> None:
    now = 1e9
    files = [state_file(tmp_path, f"run-{number}", "a" * 64) for number in range(12)]
    for age, file in enumerate(files):
        StoredState(file).save(STATE)
        os.utime(file, (now - age, now - age))
    os.utime(files[0], (now - KEPT_SECONDS - 1,) * 2)
    sweep_states(tmp_path, now)
    assert [file for file in files if file.exists()] == files[1 : KEPT_STATES + 1]
    sweep_states(tmp_path / "none", now)
