"""The accidents."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipelines.chaos.accidents.accident import Accident, Scene
from pipelines.chaos.accidents.checks import (
    all_ended,
    known_runs,
    nothing_left,
    told,
    works_again,
)
from pipelines.chaos.accidents.shell import RUN, Shell, UserCommand
from pipelines.chaos.mounts import small_disk
from pipelines.local.home import CloudInfo

RUN_SECONDS = 25.0
"""A run with its own cloud takes so long on an idle machine."""
DISK_MIB = 400
HELD_SECONDS = (6.0, 12.0)
"""How long a database is locked, or a disk full."""


def press_ctrl_c(scene: Scene) -> Iterator[str]:
    """Ctrl-C at a random moment of a run, sometimes twice."""
    shell = scene.shell()
    command = shell.start(*RUN)
    delay = scene.patience(scene.rng.uniform(0.0, RUN_SECONDS))
    info = _watch(command, shell, delay)
    scene.note(f"Ctrl-C after {delay:.1f} s")
    command.press_ctrl_c()
    if scene.rng.random() < 0.3:
        again = scene.rng.uniform(0.05, 3.0)
        time.sleep(again)
        scene.note(f"and again after {again:.1f} s")
        command.press_ctrl_c()
    said = command.said(scene.patience(60.0))
    yield from told(said, (0, 130) if said.document.get("status") == "Succeeded" else (130,))
    yield from nothing_left(scene, shell, info)
    yield from all_ended(shell)


def kill_daemon(scene: Scene) -> Iterator[str]:
    """The local cloud's process is killed in mid-run; the run is then continued."""
    shell = scene.shell()
    command = shell.start(*RUN)
    daemon, info = shell.daemon(scene.patience(60.0)), shell.home.info()
    delay = scene.patience(scene.rng.uniform(0.0, RUN_SECONDS / 2))
    if daemon is not None:
        _watch(command, shell, delay)
        scene.note(f"the local cloud is killed {delay:.1f} s after its start")
        with contextlib.suppress(psutil.NoSuchProcess):
            daemon.kill()
    said = command.said(scene.patience(60.0))
    yield from told(said, (0, 1, 2), "local cloud")
    yield from nothing_left(scene, shell, info)
    yield from told(shell.run("reconcile", "--json"), (0, 1))
    yield from all_ended(shell)
    yield from works_again(shell)


def lock_database(scene: Scene) -> Iterator[str]:
    """Another program holds MLflow's database for a while."""
    shell = scene.shell()
    yield from _database(shell)
    command = shell.start(*RUN)
    shell.daemon(scene.patience(60.0))
    _watch(command, shell, scene.patience(scene.rng.uniform(0.0, 12.0)))
    seconds = scene.patience(scene.rng.uniform(*HELD_SECONDS))
    scene.note(f"MLflow's database is locked for {seconds:.1f} s")
    with _held(shell.home.mlflow_file):
        _watch(command, shell, seconds)
    said = command.said(scene.patience(120.0))
    yield from told(said, (0,))
    yield from nothing_left(scene, shell, None)
    yield from all_ended(shell)


def damage_database(scene: Scene) -> Iterator[str]:
    """MLflow's database is damaged in mid-run, and later a copy put in its place."""
    shell = scene.shell()
    yield from _database(shell)
    known = known_runs(shell)
    command = shell.start(*RUN)
    shell.daemon(scene.patience(60.0))
    delay = scene.patience(scene.rng.uniform(0.0, 8.0))
    _watch(command, shell, delay)
    scene.note(f"MLflow's database is damaged {delay:.1f} s after the cloud's start")
    with _held(shell.home.mlflow_file):
        copy = damaged(shell.home.mlflow_file)
    said = command.said(scene.patience(60.0))
    yield from told(said, (0, 1, 2), "damaged")
    yield from nothing_left(scene, shell, None)
    yield from told(shell.run(*RUN), (2,), "damaged")
    shell.home.mlflow_file.write_bytes(copy)
    yield from told(shell.run("reconcile", "--json"), (0, 1))
    yield from all_ended(shell, known)
    yield from works_again(shell)


def fill_disk(scene: Scene) -> Iterator[str]:
    """The disk of the home is full for a while."""
    shell = scene.shell("small")
    with small_disk(shell.home.root, DISK_MIB) as refused:
        if refused:
            scene.skip(f"a small disk cannot be mounted ({refused})")
            return
        command = shell.start(*RUN)
        delay = scene.patience(scene.rng.uniform(0.0, RUN_SECONDS / 2))
        _watch(command, shell, delay)
        seconds = scene.patience(scene.rng.uniform(*HELD_SECONDS))
        scene.note(f"the disk is full after {delay:.1f} s, for {seconds:.1f} s")
        filling = shell.home.root / "filling"
        fill(filling)
        info = _watch(command, shell, seconds)
        filling.unlink()
        said = command.said(scene.patience(120.0))
        yield from told(said, (0, 1, 2))
        yield from nothing_left(scene, shell, info)
        yield from works_again(shell)
        yield from all_ended(shell)


ACCIDENTS: dict[str, Accident] = {
    "ctrl-c": press_ctrl_c,
    "cloud-killed": kill_daemon,
    "mlflow-held": lock_database,
    "mlflow-damaged": damage_database,
    "home-full": fill_disk,
}


def damaged(file: Path) -> bytes:
    """Overwrite the first pages of a file as a failing disk would; returns what it held."""
    before = file.read_bytes()
    with file.open("r+b") as handle:
        handle.write(b"\x00" * min(len(before), 8192))
    return before


def fill(file: Path) -> None:
    """Let a file take all the room that is left."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as handle:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    handle.write(b"\x00" * size)


def _database(shell: Shell) -> Iterator[str]:
    """A run makes MLflow's database, unless the home has one."""
    if not shell.home.mlflow_file.is_file():
        yield from works_again(shell)


def _watch(command: UserCommand, shell: Shell, seconds: float) -> CloudInfo | None:
    """Wait while the command runs; returns the cloud that was there last."""
    info, deadline = None, time.monotonic() + seconds
    while command.is_running() and time.monotonic() < deadline:
        info = shell.home.info() or info
        time.sleep(0.1)
    return info


@contextlib.contextmanager
def _held(file: Path) -> Iterator[None]:
    """Hold a SQLite file for oneself."""
    store = sqlite3.connect(file, isolation_level=None, timeout=60.0)
    try:
        store.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        with contextlib.suppress(sqlite3.Error):
            store.execute("ROLLBACK")
        store.close()
