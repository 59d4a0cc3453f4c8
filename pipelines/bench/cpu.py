"""CPU seconds of a process and all that it started, which other work changes little."""

from __future__ import annotations

import contextlib
import threading

import psutil

SAMPLE_SECONDS = 0.2


class CpuMeter:
    """Samples a process and its descendants, in a thread, while the block lasts.

    What a process uses between its last sample and its end is not seen.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu", daemon=True)

    def seconds(self) -> float:
        """User and system time so far, of those that have ended as well."""
        with self._lock:
            self._sample()
            return sum(self._seen.values())

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.seconds()

    def _sample(self) -> None:
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self._pid)
            for process in (first, *first.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used = process.cpu_times()
                    self._seen[(process.pid, process.create_time())] = used.user + used.system
