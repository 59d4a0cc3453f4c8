"""The clock for deadlines never goes back, and does not stop while the device sleeps."""

from __future__ import annotations

import time

import pytest

from edge.clock import uptime


def test_it_never_goes_back() -> None:
    seen = [uptime() for _ in range(1000)]
    assert seen == sorted(seen)


def test_it_counts_suspend_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 99, raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 1000.0 + clock)
    assert uptime() == 1099.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert abs(uptime() - time.monotonic()) < 1.0
