"""How slow the machine is at the moment: time limits of the suite count in its own seconds."""

from __future__ import annotations

import threading
import time
from collections import deque

PAUSE_SECONDS = 1.0
WORK_SECONDS = 0.06
"""Of processor time for each measurement: much more than a time slice, six percent of a core."""
REMEMBERED = 600


class Slowness:
    """Measures, in a thread, how many seconds a second of processor time takes.

    1 on an idle machine; about 3 when six programs share two cores.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slowness", daemon=True)

    def start(self) -> None:
        """Begin to measure; returns after the first measurement."""
        self._measure()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def since(self, moment: float) -> float:
        """The mean since a moment of the monotonic clock, at least 1; the latest value when nothing
        was measured since.
        """
        samples = list(self._samples)
        found = [ratio for at, ratio in samples if at >= moment] or [samples[-1][1]]
        return max(1.0, sum(found) / len(found))

    def now(self) -> float:
        """The mean of the last ten seconds."""
        return self.since(time.monotonic() - 10.0)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            self._measure()

    def _measure(self) -> None:
        began, worked = time.monotonic(), time.thread_time()
        while time.thread_time() - worked < WORK_SECONDS:
            pass
        ended = time.monotonic()
        self._samples.append((ended, (ended - began) / WORK_SECONDS))
