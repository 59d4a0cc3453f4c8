"""When a schedule fires: expressions of EventBridge Scheduler, read with croniter.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from itertools import islice

from croniter import CroniterBadDateError, CroniterError, croniter

from pipelines.errors import UsageError

YEARS = 8
"""How far ahead a firing is looked for: the 29th of February may be eight years away."""
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_CRON = re.compile(r"cron\(([^()]+)\)")
_NEAREST_WEEKDAY = re.compile(r"\d+W", re.IGNORECASE)


def check_fires(expression: str, now: float) -> None:
    """Check that a schedule fires at all.

    Args:
        expression: ``rate(...)``, ``at(...)`` or ``cron(...)``, in UTC.
        now: Unix time.

    Raises:
        UsageError: It is malformed, or would never fire.

    """
    if next(firings(expression, now), None) is None and not _unknown(expression):
        hint = "that moment is past" if _AT.fullmatch(expression) else "no such day comes"
        raise UsageError(f"The schedule {expression} would never fire: {hint}.")


def next_firings(expression: str, now: float, count: int = 3) -> list[float]:
    """The next moments at which a schedule fires, as Unix times; none for ``15W``, which croniter
    cannot read.
    """
    return list(islice(firings(expression, now), count))


def firings(expression: str, after: float) -> Iterator[float]:
    """Yield the moments after ``after`` at which a schedule fires. ``rate`` counts from there.

    Raises:
        UsageError: The expression is malformed.

    """
    if rate := _RATE.fullmatch(expression):
        number, unit = int(rate.group(1)), rate.group(2)
        if not number:
            raise UsageError(f"The schedule {expression} is no rate: give at least 1.")
        every = number * _UNITS[unit]
        yield from (after + every * count for count in range(1, 1000))
    elif at := _AT.fullmatch(expression):
        moment = _moment(at.group(1), expression)
        if moment > after:
            yield moment
    elif cron := _CRON.fullmatch(expression):
        if not _unknown(expression):
            yield from _cron_firings(cron.group(1), expression, after)
    else:
        raise UsageError(f"{expression!r} is no schedule of EventBridge Scheduler.")


def last_due(expression: str, since: float, now: float) -> float | None:
    """The last moment from ``since`` to ``now`` at which a schedule was due; None: there was none.

    ``rate`` counts from ``since``.
    """
    if rate := _RATE.fullmatch(expression):
        every = int(rate.group(1)) * _UNITS[rate.group(2)]
        passed = int((now - since) // every)
        return since + passed * every if passed > 0 else None
    if (cron := _CRON.fullmatch(expression)) and not _unknown(expression):
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        try:
            due = croniter(_for_croniter(cron.group(1)), moment).get_prev(float)
        except (CroniterError, KeyError, ValueError):
            return None
        return due if due >= since else None
    due = next(firings(expression, since), None) if not _unknown(expression) else None
    return due if due is not None and due <= now else None


def _unknown(expression: str) -> bool:
    return bool(_CRON.fullmatch(expression) and _NEAREST_WEEKDAY.search(expression))


def _cron_firings(fields: str, expression: str, after: float) -> Iterator[float]:
    start = datetime.datetime.fromtimestamp(after, datetime.UTC)
    limit = after + YEARS * 366 * 86_400
    try:
        times = croniter(_for_croniter(fields), start, max_years_between_matches=YEARS)
        while (moment := times.get_next(float)) <= limit:
            yield moment
    except CroniterBadDateError:
        return  # no further one
    except (CroniterError, KeyError, ValueError) as error:
        raise UsageError(f"The schedule {expression} cannot be read: {error}.") from error


def _for_croniter(fields: str) -> str:
    """AWS's six fields as croniter's seven, whose sixth are seconds.

    AWS counts the days of the week from Sunday = 1, croniter from Sunday = 0.
    """
    given = fields.split()
    if len(given) != 6:
        raise ValueError("it must have six fields")
    if (given[2] == "?") == (given[4] == "?"):
        raise ValueError("one of the two fields of days must be ?")
    minute, hour, day, month, weekday, year = ("*" if part == "?" else part for part in given)
    return f"{minute} {hour} {day} {month} {_weekday(weekday)} 0 {year}"


def _weekday(field: str) -> str:
    """Shift the numbers of days; those behind ``#`` and ``/`` are none."""
    parts = []
    for part in field.upper().split(","):
        days, mark, rest = re.fullmatch(r"([^#/]*)([#/]?)(.*)", part).groups()  # type: ignore[union-attr]  # matches all
        last = days.endswith("L") and days[:-1].isdigit()
        shifted = re.sub(r"\d", lambda found: str((int(found.group()) - 1) % 7), days.rstrip("L"))
        parts.append((f"L{shifted}" if last else shifted or days) + mark + rest)
    return ",".join(parts)


def _moment(text: str, expression: str) -> float:
    try:
        parsed = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise UsageError(f"The schedule {expression} names no moment: {error}.") from error
    return parsed.timestamp()
