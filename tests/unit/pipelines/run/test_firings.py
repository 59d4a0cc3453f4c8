"""When schedules fire, held against an implementation that is not ours: the emulator's."""

from __future__ import annotations

import datetime

import pytest
from ministack.services.eventbridge import _cron_next_fire, _parse_cron_fields

from pipelines.errors import UsageError
from pipelines.run.firings import check_fires, last_due, next_firings

NOW = datetime.datetime(2026, 11, 24, 12, 30, 10, tzinfo=datetime.UTC)


def by_the_emulator(expression: str, count: int) -> list[float]:
    found, moment = [], NOW
    while len(found) < count:
        moment = _cron_next_fire(_parse_cron_fields(expression), moment)
        found.append(moment.timestamp())
    return found


@pytest.mark.parametrize(
    "expression",
    [
        "cron(0 3 * * ? *)",
        "cron(0 3 ? * 1 *)",
        "cron(0 3 ? * SUN *)",
        "cron(15 8 ? * MON-FRI *)",
        "cron(15 8 ? * 2-6 *)",
        "cron(*/10 9-17 ? * 2,4 *)",
        "cron(0 0 1 1,7 ? *)",
        "cron(0 0 L * ? *)",
        "cron(0 0 ? * 6#3 *)",
        "cron(0 0 ? * 6L *)",
        "cron(0 3 * * ? 2027)",
        "cron(30 12 24 11 ? *)",
    ],
)
def test_firings_are_those_of_another_implementation(expression: str) -> None:
    count = 3 if expression != "cron(30 12 24 11 ? *)" else 2
    assert next_firings(expression, NOW.timestamp(), count) == by_the_emulator(expression, count)


def test_rates_and_moments() -> None:
    now = NOW.timestamp()
    assert next_firings("rate(5 minutes)", now, 2) == [now + 300, now + 600]
    assert next_firings("at(2026-11-24T12:31:00)", now) == [now + 50]
    assert next_firings("cron(0 0 29 2 ? *)", now, 1) == [
        datetime.datetime(2028, 2, 29, tzinfo=datetime.UTC).timestamp()
    ]
    check_fires("cron(0 0 15W * ? *)", now)  # valid on AWS; croniter has no W
    assert next_firings("cron(0 0 15W * ? *)", now) == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cron(0 0 31 2 ? *)", "never fire: no such day comes"),
        ("cron(0 0 1 1 ? 2020)", "never fire"),
        ("at(2020-01-01T00:00:00)", "never fire: that moment is past"),
        ("at(2027-13-01T00:00:00)", "names no moment"),
        ("rate(0 hours)", "at least 1"),
        ("cron(61 0 * * ? *)", "cannot be read"),
        ("cron(0 0 * * * *)", "one of the two fields of days"),
        ("cron(0 0 * * ?)", "six fields"),
        ("now", "no schedule"),
    ],
)
def test_a_schedule_that_never_fires_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_fires(expression, NOW.timestamp())


def test_the_last_firing_that_was_due() -> None:
    now = NOW.timestamp()
    assert last_due("cron(0 * * * ? *)", now - 7200, now) == now - 1810
    assert last_due("cron(0 3 * * ? *)", now - 7200, now) is None, "added after it"
    assert last_due("rate(1 hour)", now - 4000, now) == now - 400
    assert last_due("rate(1 hour)", now - 400, now) is None
    assert last_due("at(2026-11-24T12:00:00)", now - 7200, now) == now - 1810
    assert last_due("at(2026-11-24T13:00:00)", now - 7200, now) is None
