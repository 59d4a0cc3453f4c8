"""Times and durations as people read them."""

from __future__ import annotations

import datetime


def moment(seconds: float) -> str:
    """A time (seconds since the epoch) in UTC, as ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """A duration as a person reads it: ``45 s``, ``12 min 5 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
