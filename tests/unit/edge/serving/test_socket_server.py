"""The socket answers programs in any language, and survives bad clients."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from fakes.turbine import Turbine, ask

from edge.serving import socket_server
from edge.serving.socket_server import CONNECTIONS, LINE_LIMIT, SOCKET, PredictSocket


def served(turbine: Turbine, talk: Any) -> Any:
    """Run the socket while ``talk`` speaks to it."""

    async def session() -> Any:
        work = asyncio.create_task(PredictSocket(turbine.home, {}).run())
        while not (turbine.home / SOCKET).exists():
            await asyncio.sleep(0.01)
        try:
            return await talk(str(turbine.home / SOCKET))
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    return asyncio.run(session())


def test_the_socket_answers_programs_in_any_language(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())

    async def talk(path: str) -> list[dict]:
        assert os.stat(path).st_mode & 0o077 == 0
        return await ask(
            path,
            b'{"inputs": [[1, 2]]}',
            b"nonsense",
            b'{"inputs": [], "more": 1}',
            b'{"inputs": []}',
            b'{"inputs": [[1, 2, 3]]}',
            b'{"inputs": [[1, 2, 3, 4, 5]]}',
            b'{"inputs": [{"a": 1, "b": 4}], "truth": [9]}',
        )

    answers = served(turbine, talk)
    assert answers[0] == {"model_version": "power/1", "outputs": [6.0]}
    assert [answer["error"]["code"] for answer in answers[1:6]] == [
        "malformed",
        "malformed",
        "predict",
        "predict",
        "predict",
    ]
    assert "exited with code 9" in answers[5]["error"]["message"]
    assert answers[6] == {"model_version": "power/1", "outputs": [10.0]}  # by a new process
    assert not (turbine.home / SOCKET).exists()
    assert turbine.serving().predictions == 2


def test_a_client_that_floods_or_hangs_up_harms_nobody(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())

    async def talk(path: str) -> list[dict]:
        (too_long,) = await ask(path, b"x" * (LINE_LIMIT * 2))
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"inputs": [[1')
        writer.close()
        many = [await asyncio.open_unix_connection(path) for _ in range(40)]
        for _, other in many:
            other.close()
        await asyncio.sleep(0.2)
        return [too_long, *await ask(path, b'{"inputs": [[1, 2]]}')]

    answers = served(turbine, talk)
    assert answers[0].get("error", {}).get("code") in ("too-long", None)
    assert answers[1]["outputs"] == [6.0]


def test_half_lines_keep_no_request_out(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())

    async def talk(path: str) -> list[dict]:
        half = [await asyncio.open_unix_connection(path) for _ in range(2 * CONNECTIONS)]
        for number, (_, writer) in enumerate(half):
            writer.write(b'{"inputs": [[1' if number % 2 else b"")
        await asyncio.sleep(0.1)
        answers = await ask(path, b'{"inputs": [[1, 2]]}')
        newest_reader, newest = half[-1]
        newest.write(b", 2]]}\n")
        answers.append(json.loads(await newest_reader.readline()))
        for _, writer in half:
            writer.close()
        return answers

    assert [answer["outputs"] for answer in served(turbine, talk)] == [[6.0], [6.0]]


def test_a_line_that_does_not_end_is_given_up(
    turbine: Turbine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "LINE_SECONDS", 0.05)

    async def talk(path: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"inputs": [[1')
        ended = await asyncio.wait_for(reader.read(), 5.0)
        writer.close()
        return ended

    assert served(turbine, talk) == b""


def test_a_folder_too_deep_for_a_socket_is_no_failure(turbine: Turbine) -> None:
    deep = turbine.home / ("d" * 90)
    deep.mkdir()
    asyncio.run(asyncio.wait_for(PredictSocket(deep, {}).run(), 5.0))
    assert not list(deep.iterdir())
    (turbine.home / SOCKET).mkdir()  # something that is no socket stands in its place
    asyncio.run(asyncio.wait_for(PredictSocket(turbine.home, {}).run(), 5.0))
