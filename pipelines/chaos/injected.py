"""Errors of AWS, injected into a process's own calls by botocore's events.

The local cloud's children call :func:`install` where ``MLEDGEOPS_CHILD_HOOK`` names it. They read
the control file at each call, so that errors can begin and end while they run.
``before-send`` lies inside botocore's retries, so an injected error is retried like a real one:
https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html
"""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge.files import write_atomically
from edge.typed import from_json
from pipelines.local.child import HOOK as CHILD_HOOK

VARIABLE = "MLEDGEOPS_CHAOS"
"""Environment variable with the control file's path."""
HOOK = "pipelines.chaos.injected:install"
"""Names :func:`install` for :mod:`pipelines.local.child`."""


class InjectedError(msgspec.Struct, frozen=True, kw_only=True):
    """An error that a share of the calls to one service gets."""

    service: str
    """As botocore's events name it, which is not always the client's name: ``iot-data-plane``."""
    share: float
    """0 to 1."""
    status: int = 500
    code: str = "InternalServerError"
    repeat: bool = False
    """Instead of failing, calls go out twice, and an earlier call of the process after them."""
    record: bool = False
    """Instead of failing, calls are written down: see :meth:`ControlFile.recorded`."""


class RecordedCall(msgspec.Struct, frozen=True):
    """A call of a task, as it went out."""

    url: str
    body: bytes


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The control file."""

    s3: str
    """S3's endpoint: a link that can be cut."""
    rules: list[InjectedError] = []


class ControlFile:
    """The side that decides which errors are injected."""

    def __init__(self, file: Path, s3_port: int) -> None:
        self.file = file
        self._s3 = f"http://127.0.0.1:{s3_port}"
        self._rules: list[InjectedError] = []
        self.clear()

    def environment(self) -> dict[str, str]:
        """Variables with which the local cloud's children inject errors."""
        return {VARIABLE: str(self.file), CHILD_HOOK: HOOK}

    def clear(self) -> None:
        """Inject nothing."""
        self._write([])

    @contextlib.contextmanager
    def failing(self, *rules: InjectedError) -> Iterator[None]:
        """Inject errors while the block lasts."""
        self._write([*self._rules, *rules])
        try:
            yield
        finally:
            self._write([rule for rule in self._rules if rule not in rules])

    def recorded(self) -> list[RecordedCall]:
        """The calls that were written down so far, oldest first."""
        file = _records(self.file)
        lines = file.read_bytes().splitlines() if file.is_file() else []
        return [from_json(line, type=RecordedCall) for line in lines]

    def _write(self, rules: list[InjectedError]) -> None:
        self._rules = rules
        content = msgspec.json.encode(Control(s3=self._s3, rules=rules))
        write_atomically(self.file, content, durable=False)


class Injector:
    """A handler of botocore's ``before-send`` that answers in the service's place."""

    def __init__(self, file: Path, dice: random.Random | None = None) -> None:
        self._file = file
        self._dice = dice or random.Random()  # noqa: S311  # chance, not a secret
        self._sent: list[Any] = []

    def __call__(self, request: Any, event_name: str, **_: Any) -> Any:
        """The response to return instead of sending the request, or None to send it."""
        service = event_name.split(".")[1]
        try:
            rules = from_json(self._file.read_bytes(), type=Control).rules
        except (OSError, msgspec.DecodeError):
            return None
        for rule in rules:
            if rule.service == service and self._dice.random() < rule.share:
                if rule.record:
                    return self._record(request)
                return self._send_again(request) if rule.repeat else error_response(request, rule)
        return None

    def _record(self, request: Any) -> None:
        call = msgspec.json.encode(RecordedCall(request.url, bytes(request.body or b"")))
        # Tasks share the file: a line of a few KB is appended whole.
        with _records(self._file).open("ab", buffering=0) as file:
            file.write(call + b"\n")

    def _send_again(self, request: Any) -> None:
        from botocore.httpsession import URLLib3Session

        earlier = self._dice.choice(self._sent) if self._sent else request
        self._sent.append(request)
        for copy in (request, earlier):
            URLLib3Session().send(copy)


def _records(control: Path) -> Path:
    return control.with_suffix(".calls")


class _Body(io.BytesIO):
    """A response's body as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()


def error_response(request: Any, rule: InjectedError) -> Any:
    """An error in the service's own format: XML for S3, JSON for the others."""
    from botocore.awsrequest import AWSResponse

    if rule.service == "s3":
        body = f"<Error><Code>{rule.code}</Code><Message>chaos</Message></Error>".encode()
    else:
        body = msgspec.json.encode({"__type": rule.code, "message": "chaos"})
    return AWSResponse(request.url, rule.status, {"x-amzn-errortype": rule.code}, _Body(body))


def install() -> None:
    """Put the injector into every client that this process makes from now on."""
    import boto3

    file = Path(os.environ[VARIABLE])
    os.environ["AWS_ENDPOINT_URL_S3"] = from_json(file.read_bytes(), type=Control).s3
    boto3.setup_default_session()
    session = boto3._get_default_session()
    session.events.register("before-send.*", Injector(file))
