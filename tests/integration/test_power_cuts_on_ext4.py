"""The power of a real ext4 file system is cut while a device writes to it, at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.device_writes import install, models, weights_of
from support.paths import ROOT

from edge.agent.spool import Spool
from edge.identity.credentials import Credentials, is_whole
from edge.serving.model_store import ModelRefused
from pipelines.chaos.devices.disk import ImageDisk

pytestmark = pytest.mark.proof
CUTS = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ImageDisk]:
    made = ImageDisk(tmp_path / "image.ext4", tmp_path / "disk")
    if refused := "this needs root" if os.geteuid() else made.make():
        pytest.skip(f"an ext4 image cannot be mounted here: {refused}")
    yield made
    made.unmount()


def test_a_device_finds_what_it_had_done_after_any_cut(disk: ImageDisk, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        device = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "support.device_writes",
                tmp_path / "disk",
                tmp_path / "outside",
            ],
            stdout=out,
            cwd=ROOT / "tests",
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        )
    dice, moments = random.Random(1), set()
    try:
        while b"reply 2\n" not in said.read_bytes():
            assert device.poll() is None
        for cut in range(CUTS):
            time.sleep(dice.uniform(0.0, 0.2))
            left, done = _left_by_a_cut(device.pid, disk, said)
            try:
                _check(left, tmp_path / f"fetched-{cut}", done)
            finally:
                assert ImageDisk(tmp_path / "image.left", left).unmount() == ""
            moments.add(tuple(done.values()))
    finally:
        device.send_signal(signal.SIGCONT)
        device.kill()
        device.wait()
    assert len(moments) > CUTS / 4, "the cuts came at many moments"


def _left_by_a_cut(pid: int, disk: ImageDisk, said: Path) -> tuple[Path, dict[str, int]]:
    """The file system as a cut at this moment leaves it, and what the device had said by then."""
    device = psutil.Process(pid)
    device.suspend()
    while device.status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)
    done = {"pair": 0, "model": 0, "reply": 0}
    for line in said.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            kind, number = line.split()
            done[kind] = int(number)
    copy = disk.copy()
    device.resume()
    left = copy.with_name("left")
    left.mkdir(exist_ok=True)
    assert ImageDisk(copy, left).mount() == ""
    return left, done


def _check(disk: Path, fetched: Path, done: dict[str, int]) -> None:
    credentials = Credentials(disk / "credentials")
    credentials.recover()
    pair = credentials.certificate.resolve().parent
    assert is_whole(pair)
    assert int(pair.name.removeprefix("pair-")) >= done["pair"]
    active = models(disk, fetched, 0).usable().manifest
    assert active is not None
    assert active.sequence >= done["model"]
    with pytest.raises(ModelRefused, match="has followed"):
        install(disk, fetched, active.sequence - 1)
    spool = Spool(disk / "spool")
    assert spool.get(f"m{done['reply']}") == b"reply %d" % done["reply"]
    assert weights_of(active.sequence) in [
        file.read_bytes() for file in (disk / "models").iterdir() if file.is_file()
    ]
