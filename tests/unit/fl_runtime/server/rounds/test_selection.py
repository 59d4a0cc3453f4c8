"""Which devices a round asks: reproducibly, by the run's policy, and with spares."""

from __future__ import annotations

import pytest
from fakes.runs import record, row, spec

from fl_runtime.run.cohorts import Cohort, Member
from fl_runtime.server.rounds.device_history import DeviceHistory
from fl_runtime.server.rounds.selection import over_select, select, without_excluded

MEMBERS = [Member(f"d{n}", n, {"site": "abbb"[n % 4]} if n < 8 else {}) for n in range(10)]
COHORTS = [Cohort("c0", MEMBERS[:4]), Cohort("c1", MEMBERS[4:])]


def names(members: list[Member]) -> list[str]:
    return [member.device for member in members]


def chosen(count: int = 4, number: int = 1, attempt: int = 1, **changes: object) -> list[str]:
    members = changes.pop("members", MEMBERS)
    history = changes.pop("history", DeviceHistory())
    return names(select(spec(**changes), members, count, history, number, attempt))  # type: ignore[arg-type]


def excluded(*devices: str) -> DeviceHistory:
    """A history in which these devices have failed in three consecutive rounds."""
    history = DeviceHistory()
    for number in (1, 2, 3):
        history.add(record(number, *(row(device, "error") for device in devices)))
    return history


def test_a_choice_is_the_seeds_whatever_the_order_of_the_devices() -> None:
    assert chosen(seed=7) == ["d7", "d1", "d5", "d3"], "seeds give the choices they always gave"
    assert chosen(seed=7, members=MEMBERS[::-1]) == chosen(seed=7)
    others = [chosen(seed=8), chosen(seed=7, number=2), chosen(seed=7, attempt=2)]
    assert chosen(seed=7) not in others
    assert sorted(chosen(count=99)) == names(MEMBERS)


def test_round_robin_asks_those_that_trained_least() -> None:
    history = DeviceHistory()
    for number, devices in enumerate(("d0", "d1"), 1):
        history.add(record(number, *(row(m.device) for m in MEMBERS if m.device not in devices)))
    history.add(record(3, row("d1")))
    found = chosen(count=2, selection="least-seen", history=history)
    assert found[0] == "d0"
    assert len(found) == 2
    firsts = {chosen(1, number, selection="least-seen")[0] for number in range(20)}
    assert len(firsts) > 3, "ties are broken at random"


def test_a_stratified_round_has_each_site_and_those_without_one() -> None:
    for number in range(10):
        found = chosen(3, number, selection="stratified:site")
        sites = {MEMBERS[int(name[1:])].labels.get("site", "") for name in found}
        assert sites == {"", "a", "b"}
    assert sorted(chosen(10, selection="stratified:site")) == names(MEMBERS)
    assert [len(chosen(n, selection="stratified:site")) for n in (1, 4, 7)] == [1, 4, 7]
    assert len(set(chosen(7, selection="stratified:site"))) == 7
    assert len({tuple(chosen(1, number, selection="stratified:site")) for number in range(20)}) > 3


def test_spares_meet_the_factor_and_come_from_cohorts_that_take_part() -> None:
    wanted = MEMBERS[4:6]
    spares = over_select(spec(over_selection=1.6), COHORTS, wanted, MEMBERS, 1, 1)
    assert len(spares) == 2, "two of 3.2, rounded up"
    assert set(names(spares)) < {"d6", "d7", "d8", "d9"}
    again = over_select(spec(over_selection=1.6), COHORTS[::-1], wanted, MEMBERS, 1, 1)
    assert names(again) == names(spares)
    assert over_select(spec(over_selection=1.0), COHORTS, wanted, MEMBERS, 1, 1) == []
    few = over_select(spec(over_selection=9.0), COHORTS, wanted, MEMBERS[:7], 1, 1)
    assert names(few) == ["d6"], "only those that are available"


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        (1, ["d3", "d4"]),
        (2, ["d3", "d4"]),
        (3, ["d3", "d4", "d0"]),
        (4, ["d3", "d4", "d0", "d1"]),
        (9, ["d3", "d4", "d0", "d1", "d2"]),
    ],
)
def test_excluded_devices_come_back_when_they_are_needed(
    at_least: int, expected: list[str]
) -> None:
    members = [MEMBERS[at] for at in (2, 3, 0, 4, 1)]
    found = without_excluded(members, excluded("d0", "d1", "d2"), 4, at_least)
    assert names(found) == expected
