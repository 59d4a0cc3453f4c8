"""The entry point: the environment it needs, and the answer that Step Functions gets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from botocore.exceptions import EndpointConnectionError

from fl_runtime.run.errors import RunFailed, SettingMissing
from fl_runtime.server.conclusion import RunOutcome
from fl_runtime.server.main import main, make_server, read_settings, serve_and_answer
from fl_runtime.server.server import Server

ENVIRONMENT = {
    "MLEDGEOPS_BUCKET": "bucket",
    "MLEDGEOPS_DEVICES_TABLE": "devices",
    "MLEDGEOPS_REPLIES_TABLE": "replies",
    "MLEDGEOPS_RUNS_TABLE": "runs",
    "MLEDGEOPS_RUN": "run-1",
    "MLEDGEOPS_TASK_TOKEN": "token",
    "MLEDGEOPS_COMMANDS_KEY": "key",
}
OUTCOME = RunOutcome(
    run="run-1",
    rounds=2,
    participants=3,
    metric="loss",
    value=0.5,
    score=-0.5,
    reported_score=-0.5,
    model_digest="d",
    model_data="s3://b/m",
    evaluation="s3://b/e",
    mlflow_run_id="r",
    mlflow_model_id="m-1",
    ended="-",
)


class Token:
    """A task token that keeps its answer."""

    def __init__(self, delivered: bool = True) -> None:
        self.delivered = delivered
        self.answers: list[tuple[str, ...]] = []

    def succeed(self, output: str) -> bool:
        self.answers.append(("success", output))
        return self.delivered

    def fail(self, error: str, cause: str) -> bool:
        self.answers.append((error, cause))
        return self.delivered


class Finished:
    """A server whose run has ended in a given way."""

    def __init__(self, ended: RunOutcome | Exception) -> None:
        self.ended = ended
        self.announced = False

    def serve(self) -> RunOutcome:
        if isinstance(self.ended, Exception):
            raise self.ended
        return self.ended

    def announce_end(self) -> None:
        self.announced = True


@pytest.mark.parametrize(
    ("ended", "code", "answer", "announced"),
    [
        (OUTCOME, 0, "success", True),
        (RunFailed("quorum", "Too few."), 1, "RunFailed", True),
        (ValueError("a bug"), 1, "ServerCrashed", False),
        (EndpointConnectionError(endpoint_url="http://x"), 1, "ServerCrashed", False),
        (RunFailed("fenced", "Another server."), 0, None, False),
    ],
)
def test_each_end_has_its_answer_and_exit_code(
    ended: object, code: int, answer: str | None, announced: bool
) -> None:
    server, token, stop = Finished(ended), Token(), threading.Event()
    assert serve_and_answer("run-1", server, token, stop) == code
    assert [name for name, _ in token.answers] == ([answer] if answer else [])
    assert server.announced is announced, "a crashed server is started again: proxies wait for it"
    assert stop.is_set(), "no heartbeat after the answer"


def test_an_answer_that_is_lost_is_a_failure() -> None:
    assert serve_and_answer("r", Finished(OUTCOME), Token(delivered=False), threading.Event()) == 1


def test_settings_name_the_first_variable_that_is_missing() -> None:
    settings = read_settings({**ENVIRONMENT, "MLEDGEOPS_SERVER_ADDRESS": "127.0.0.1"})
    assert (settings.run, settings.names.bucket, settings.artifact_root) == (
        "run-1",
        "bucket",
        None,
    )
    assert settings.address() == "127.0.0.1"
    assert read_settings({**ENVIRONMENT, "MLEDGEOPS_TASK": "arn:t"}).task() == "arn:t"
    for name in ENVIRONMENT:
        rest = {key: value for key, value in ENVIRONMENT.items() if key != name}
        with pytest.raises(SettingMissing, match=name):
            read_settings(rest)


@pytest.fixture
def root_handlers() -> Iterator[None]:
    """The program sets up the root logger; later tests must not see that."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


@pytest.mark.usefixtures("root_handlers")
def test_without_its_environment_the_program_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert main() == 2
    assert "MLEDGEOPS_BUCKET is not set" in capsys.readouterr().err


def test_wiring_reaches_no_network() -> None:
    server = make_server(read_settings(ENVIRONMENT), threading.Event())
    assert isinstance(server, Server)
