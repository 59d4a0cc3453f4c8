"""One phase for messages that several threads send at the same time.

Flower's older loop sends each client its message from a thread of its own. As a phase each, they
would take turns on their cohort's line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future

from flwr.app import Message

from fl_runtime.server.grid.iot_grid import IoTGrid

WINDOW_SECONDS = 0.05
"""How long the first message waits for the others of its round: they are sent without a pause."""


class CombiningGrid(IoTGrid):
    """The grid for apps of Flower's older interface."""

    def __init__(self, grid: IoTGrid) -> None:
        super().__init__(grid.phases)
        self._lock = threading.Lock()
        self._waiting: list[tuple[list[Message], Future[list[Message]]]] = []
        self._sends = False

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # the older loop gives none
    ) -> Iterable[Message]:
        """The replies to these messages, which are sent with those of other threads."""
        future: Future[list[Message]] = Future()
        with self._lock:
            self._waiting.append((list(messages), future))
            first, self._sends = not self._sends, True
        if first:
            self._send_all()
        return future.result()

    def _send_all(self) -> None:
        """Send what waits, until nothing does."""
        while True:
            time.sleep(WINDOW_SECONDS)
            with self._lock:
                calls, self._waiting = self._waiting, []
                if not calls:
                    self._sends = False
                    return
            self._answer(calls)

    def _answer(self, calls: list[tuple[list[Message], Future[list[Message]]]]) -> None:
        try:
            together = [message for messages, _ in calls for message in messages]
            replies = list(super().send_and_receive(together))
        except Exception as error:  # noqa: BLE001  # raised where each reply is awaited
            for _, future in calls:
                future.set_exception(error)
            return
        of = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for messages, future in calls:
            ids = [message.metadata.message_id for message in messages]
            future.set_result([of[name] for name in ids if name in of])
