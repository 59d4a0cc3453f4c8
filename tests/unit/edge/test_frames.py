"""Frames over pipes: whole or not at all; a process that dies is replaced by the next frame."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.paths import ROOT

from edge.frames import FramedProcess, read_frame, write_frame

ECHO = """
import os, sys, time
from edge.frames import read_frame, take_over_stdout, write_frame

frames = take_over_stdout()
while (body := read_frame(sys.stdin.buffer)) is not None:
    print("an app prints this", flush=True)
    if body == b"exit":
        os._exit(9)
    if body == b"hang":
        time.sleep(100)
    write_frame(frames, sys.argv[1].encode() + body)
"""


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 300])
def test_a_frame_is_read_as_it_was_written(body: bytes) -> None:
    stream = io.BytesIO()
    write_frame(stream, body)
    write_frame(stream, b"next")
    stream.seek(0)
    assert (read_frame(stream), read_frame(stream), read_frame(stream)) == (body, b"next", None)


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_frame_that_was_cut_off_is_the_end(cut: int) -> None:
    stream = io.BytesIO()
    write_frame(stream, b"body")
    assert read_frame(io.BytesIO(stream.getvalue()[:cut])) is None


def with_echo(folder: Path, test: Callable[[FramedProcess], Awaitable[None]]) -> None:
    (folder / "echo.py").write_text(ECHO)

    async def main() -> None:
        process = FramedProcess(("echo", ">"), {"PYTHONPATH": f"{folder}:{ROOT}"})
        try:
            await test(process)
        finally:
            await process.stop()
            await process.stop()  # stopping twice does no harm

    asyncio.run(main())


def test_what_an_app_prints_does_not_get_between_the_frames(tmp_path: Path) -> None:
    async def test(process: FramedProcess) -> None:
        assert [await process.exchange(b"a"), await process.exchange(b"b")] == [b">a", b">b"]

    with_echo(tmp_path, test)


def test_a_process_that_died_says_why_and_is_replaced(tmp_path: Path) -> None:
    async def test(process: FramedProcess) -> None:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await process.exchange(b"exit")
        assert await process.reason_of_death() == (
            "the worker process exited with code 9: an app prints this"
        )
        assert await process.exchange(b"again") == b">again"

    with_echo(tmp_path, test)


def test_a_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.frames.STOP_SECONDS", 0.05)

    async def test(process: FramedProcess) -> None:
        await process.exchange(b"a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.exchange(b"hang"), 0.05)
        assert await process.reason_of_death() == "the worker process stopped answering"

    with_echo(tmp_path, test)


def test_a_module_that_cannot_be_started_is_a_dead_process() -> None:
    async def main() -> None:
        process = FramedProcess(("edge.no_such_module",), {})
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await process.exchange(b"a")
        reason = await process.reason_of_death()
        assert "exited with code 1" in reason and "no_such_module" in reason

    asyncio.run(main())
