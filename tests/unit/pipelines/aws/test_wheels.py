"""Wheels for other machines: which platforms pip is asked for, and how they are packed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pipelines.aws import wheels
from pipelines.errors import DeployError


def test_an_architecture_is_asked_for_by_all_its_tags() -> None:
    options = wheels.platforms("ARM64")
    assert options[:2] == ["--platform", "manylinux2014_aarch64"]
    assert all(option == "--platform" or option.endswith("_aarch64") for option in options)
    with pytest.raises(DeployError, match="it must be ARM64 or X86_64"):
        wheels.platforms("VAX")


def test_a_folder_is_packed_whole(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(b"a")
    wheels.archive(tmp_path / "wheels", tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["a.whl"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["all.zip", "wheels"]


def test_no_wheel_is_built_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "ROOT", tmp_path)
    with pytest.raises(DeployError, match="is not a checkout"):
        wheels.wheel(tmp_path)
