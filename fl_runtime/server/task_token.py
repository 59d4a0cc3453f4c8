"""The Step Functions task that waits for this process (``.waitForTaskToken``).

https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html#connect-wait-token
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from edge import logs

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0


class TaskToken:
    """Sends heartbeats for a task, and its answer."""

    def __init__(self, stepfunctions: Any, token: str) -> None:
        self._client = stepfunctions
        self._token = token

    def heartbeat(self) -> bool:
        """Tell that the task is alive; False when Step Functions no longer waits for it."""
        # A client's exception classes are made when it is: they cannot be imported.
        gone = self._client.exceptions
        try:
            self._client.send_task_heartbeat(taskToken=self._token)
        except (gone.TaskDoesNotExist, gone.TaskTimedOut, gone.InvalidToken):
            return False
        return True

    def succeed(self, output: str) -> bool:
        """Answer with JSON; False when the answer could not be delivered."""
        return self._answer(
            lambda: self._client.send_task_success(taskToken=self._token, output=output)
        )

    def fail(self, error: str, cause: str) -> bool:
        """Answer with a failure; False when the answer could not be delivered."""
        return self._answer(
            lambda: self._client.send_task_failure(taskToken=self._token, error=error, cause=cause)
        )

    def _answer(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except (ClientError, BotoCoreError):
            logger.exception("answer-lost")
            return False
        return True


class Watched(Protocol):
    """What the heartbeat thread asks of a server."""

    def beat(self) -> None:
        """Tell that the run goes on."""

    def is_stopping(self) -> bool:
        """Whether somebody has asked the run to stop."""


def keep_alive(
    token: TaskToken, server: Watched, on_lost: Callable[[], None], ended: threading.Event
) -> None:
    """Send heartbeats until ``ended`` is set.

    Calls ``on_lost`` and returns when Step Functions no longer waits for the task or the run is
    being stopped.
    """
    while True:
        try:
            waited_for = token.heartbeat()
            if waited_for:
                server.beat()
            if not waited_for or server.is_stopping():
                on_lost()
                return
        # One lost heartbeat is no harm: Step Functions waits for several.
        except (ClientError, BotoCoreError, OSError) as error:
            logs.event(logger, "heartbeat-lost", logging.WARNING, reason=str(error))
        if ended.wait(HEARTBEAT_SECONDS):
            return
