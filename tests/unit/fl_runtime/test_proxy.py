"""A proxy serves its cohort until the run ends, whatever happens to the server."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from botocore.exceptions import ClientError
from fakes.clock import Clock

from fl_runtime.proxy import SERVER_WAIT_SECONDS, main, serve
from fl_runtime.run.state import RunState

RUNNING = RunState(run="run-1", state="Running", server="10.0.0.1:50051", epoch=1)
LOST = ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")


class Server:
    """Connections that end as told: True is a goodbye, False a lost connection."""

    def __init__(self, clock: Clock, *ends: bool | Exception, seconds: float = 60.0) -> None:
        self.clock, self.ends, self.seconds = clock, list(ends), seconds
        self.attached: list[int] = []

    def connect(self, state: RunState) -> bool:
        self.attached.append(state.epoch)
        end = self.ends.pop(0) if self.ends else LOST
        if isinstance(end, Exception):
            raise end
        self.clock.sleep(self.seconds)
        return end


def run(server: Server, states: Iterable[RunState | None]) -> int:
    remaining = list(states)
    return serve(
        "run-1",
        "c0000",
        state=lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0],
        connect=server.connect,
        clock=server.clock,
        sleep=server.clock.sleep,
    )


def test_a_goodbye_ends_the_proxy() -> None:
    server = Server(Clock(), True)
    assert run(server, [RUNNING]) == 0
    assert server.attached == [1]


@pytest.mark.parametrize("state", ["Concluding", "Stopping", "Succeeded", "Failed", "Stopped"])
def test_a_run_that_is_over_needs_no_proxy(state: str) -> None:
    server = Server(Clock())
    assert run(server, [RunState(run="run-1", state=state, server="x:1")]) == 0  # type: ignore[arg-type]
    assert run(server, [None]) == 0
    assert server.attached == []


def test_it_waits_for_the_server_and_attaches_again_to_its_successor() -> None:
    starting = RunState(run="run-1", state="Starting")
    successor = RunState(run="run-1", state="Running", server="10.0.0.2:50051", epoch=2)
    server = Server(Clock(), False, LOST, True)
    assert run(server, [starting, RUNNING, RUNNING, successor]) == 0
    assert server.attached == [1, 1, 2]


def test_it_gives_up_when_the_server_does_not_come_back() -> None:
    clock = Clock()
    server = Server(clock, False, seconds=1000.0)
    assert run(server, [RUNNING]) == 1
    waited = clock.now - 1000.0
    assert waited == pytest.approx(SERVER_WAIT_SECONDS, abs=2.0), "counted from the lost connection"


def test_without_its_environment_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLEDGEOPS_BUCKET", raising=False)
    assert main() == 2
