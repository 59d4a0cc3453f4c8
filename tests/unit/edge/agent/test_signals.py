"""Work is cancelled by a signal, and may clean up."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from edge.agent.signals import until_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_work_and_lets_it_clean_up(number: signal.Signals) -> None:
    said = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(10)
        finally:
            said.append("cleaned up")

    asyncio.run(until_signal(work()))
    assert said == ["cleaned up"]


def test_work_that_ends_or_fails_is_passed_on() -> None:
    async def done() -> None:
        return

    async def fails() -> None:
        raise KeyError("reason")

    asyncio.run(until_signal(done()))
    with pytest.raises(KeyError, match="reason"):
        asyncio.run(until_signal(fails()))
