"""Heartbeats while a run lasts, and what ends them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from botocore.exceptions import ClientError

from fl_runtime.server.task_address import own_address, own_task
from fl_runtime.server.task_token import TaskToken, keep_alive


class StepFunctions:
    """The calls of a waiting task; ``error`` is raised by each."""

    class exceptions:  # as boto3 names it
        class TaskDoesNotExist(Exception):
            pass

        class TaskTimedOut(Exception):
            pass

        class InvalidToken(Exception):
            pass

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, dict[str, str]]] = []

    def _call(self, name: str, arguments: dict[str, str]) -> None:
        self.calls.append((name, arguments))
        if self.error is not None:
            raise self.error

    def send_task_heartbeat(self, **arguments: str) -> None:
        self._call("heartbeat", arguments)

    def send_task_success(self, **arguments: str) -> None:
        self._call("success", arguments)

    def send_task_failure(self, **arguments: str) -> None:
        self._call("failure", arguments)


class Watched:
    """A server that is being stopped after a number of looks."""

    def __init__(self, looks: int, ended: threading.Event) -> None:
        self.looks = looks
        self.ended = ended
        self.progress = 0

    def beat(self) -> None:
        self.progress += 1

    def is_stopping(self) -> bool:
        self.looks -= 1
        if self.looks < -1:
            raise AssertionError("the heartbeat went on")
        return self.looks < 0


THROTTLED = ClientError({"Error": {"Code": "ThrottlingException"}}, "SendTaskHeartbeat")


def test_answers_carry_the_token_and_say_whether_they_arrived() -> None:
    steps = StepFunctions()
    token = TaskToken(steps, "t")
    assert token.heartbeat()
    assert token.succeed("{}")
    assert token.fail("RunFailed", "because")
    assert steps.calls == [
        ("heartbeat", {"taskToken": "t"}),
        ("success", {"taskToken": "t", "output": "{}"}),
        ("failure", {"taskToken": "t", "error": "RunFailed", "cause": "because"}),
    ]
    steps.error = THROTTLED
    assert not token.succeed("{}")


@pytest.mark.parametrize("name", ["TaskDoesNotExist", "TaskTimedOut", "InvalidToken"])
def test_a_task_that_nobody_waits_for_is_lost(name: str) -> None:
    token = TaskToken(StepFunctions(getattr(StepFunctions.exceptions, name)()), "t")
    assert not token.heartbeat()
    ended, lost = threading.Event(), []
    watched = Watched(5, ended)
    keep_alive(token, watched, lambda: lost.append(1), ended)
    assert lost == [1]
    assert watched.progress == 0


def test_a_run_that_is_being_stopped_is_lost() -> None:
    ended, lost = threading.Event(), []
    watched = Watched(0, ended)
    keep_alive(TaskToken(StepFunctions(), "t"), watched, lambda: lost.append(1), ended)
    assert (lost, watched.progress) == ([1], 1)


def test_trouble_with_aws_is_waited_out_until_the_run_has_ended() -> None:
    ended, lost = threading.Event(), []
    ended.set()
    steps = StepFunctions(THROTTLED)
    keep_alive(TaskToken(steps, "t"), Watched(5, ended), lambda: lost.append(1), ended)
    assert (len(steps.calls), lost) == (1, [])


@pytest.fixture
def metadata() -> Iterator[str]:
    """The ECS task metadata endpoint, as far as it is read."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = {"/task": {"TaskARN": "arn:t"}}.get(
                self.path, {"Networks": [{"IPv4Addresses": ["10.0.1.7"]}]}
            )
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_server_learns_its_address_and_its_name_from_ecs(metadata: str) -> None:
    assert own_address(metadata) == "10.0.1.7"
    assert own_task(metadata) == "arn:t"
