"""What time it surely is, by what the cloud has said: signed orders, and answers about jobs."""

from __future__ import annotations

from collections.abc import Callable

_MILLISECONDS_FROM = 1e11
"""AWS IoT's documentation gives timestamps in seconds and shows some in milliseconds. In seconds,
this is the year 5138."""


class CloudTime:
    """The latest time that has passed by the cloud's clock. The device's own may be wrong.

    A freeze attack keeps a device on an old model by serving it an old manifest for ever. Who
    delivers messages can hold answers back, but can neither forge a signed order nor take back its
    time of issue.
    """

    def __init__(self, ordered: Callable[[], float]) -> None:
        """``ordered``: the latest time at which a signed order was issued, in Unix seconds."""
        self._ordered = ordered
        # Not kept on disk: it is not signed, so a wrong one must not outlive the process.
        self._answered = 0.0

    def answered(self, timestamp: float) -> None:
        """Take note of the time of an answer, as AWS IoT writes it."""
        seconds = timestamp / 1000 if timestamp > _MILLISECONDS_FROM else timestamp
        self._answered = max(self._answered, seconds)

    def passed(self) -> float:
        """A Unix time that has passed; 0 when the cloud has said none yet."""
        return max(self._ordered(), self._answered)
