"""Errors of AWS in a task's own calls, by botocore's events. :mod:`pipelines.local.child` installs
it where chaos asks for it.

https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html (``before-send``:
inside the retries)
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

VARIABLE = "MLEDGEOPS_CHAOS"
"""Path of the :class:`Control` file."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one service fail by this share. ``repeat``: they succeed, and go out twice, with an
    earlier one after them.
    """

    service: str
    share: float
    status: int = 500
    code: str = "InternalServerError"
    repeat: bool = False


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What tasks read at each call."""

    s3: str
    """Endpoint of S3: a link that can be cut."""
    rules: list[Rule] = []


class _Body(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()


class Injector:
    """Answers in AWS's place."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sent: list[Any] = []

    def __call__(self, request: Any, event_name: str, **_: Any) -> Any:
        """A response to give instead of sending, or None to send."""
        service = event_name.split(".")[1]
        try:
            rules = msgspec.json.decode(self._file.read_bytes(), type=Control).rules
        except (OSError, msgspec.DecodeError):
            return None
        for rule in rules:
            if rule.service == service and random.random() < rule.share:  # noqa: S311  # chance, no secret
                return self._again(request) if rule.repeat else _failure(request, rule)
        return None

    def _again(self, request: Any) -> None:
        from botocore.httpsession import URLLib3Session

        earlier = random.choice(self._sent) if self._sent else request  # noqa: S311  # chance, no secret
        self._sent.append(request)
        for copy in (request, earlier):
            URLLib3Session().send(copy)


def _failure(request: Any, rule: Rule) -> Any:
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
    os.environ["AWS_ENDPOINT_URL_S3"] = msgspec.json.decode(file.read_bytes(), type=Control).s3
    boto3.setup_default_session()
    session = boto3._get_default_session()
    session.events.register("before-send.*", Injector(file))
