"""No order is carried out twice, whatever the device's own clock says."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.devices import a_command

from edge.agent.freshness import KEPT, Freshness
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command

NOON = 1_800_000_000_000


def order(message_id: str, issued: int, seconds: float = 60.0) -> Command:
    return a_command(message_id, issued=issued, seconds=seconds)


def refused(freshness: Freshness, *orders: Command) -> bool:
    for each in orders:
        with pytest.raises(ProtocolError) as error:
            freshness.use(each)
        assert error.value.code == "outdated"
    return True


def test_an_order_is_used_once_and_after_a_restart_too(tmp_path: Path) -> None:
    file = tmp_path / "state" / "orders.json"
    Freshness(file).use(order("a", NOON))
    assert refused(Freshness(file), order("a", NOON), order("a", NOON - 1))
    Freshness(file).use(order("a", NOON + 1))


def test_orders_of_two_runs_may_cross(tmp_path: Path) -> None:
    freshness = Freshness(tmp_path / "orders.json")
    freshness.use(order("a", NOON))
    freshness.use(order("b", NOON - 5_000))
    assert freshness.latest() == NOON / 1000, "in seconds"


def test_an_order_whose_deadline_lies_before_a_later_one_is_refused(tmp_path: Path) -> None:
    freshness = Freshness(tmp_path / "orders.json")
    freshness.use(order("b", NOON))
    assert refused(freshness, order("a", NOON - 61_000), order("a", NOON - 60_001))
    freshness.use(order("a", NOON - 60_000))


def test_what_no_longer_fits_is_refused_and_not_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    freshness = Freshness(file)
    orders = [order(f"m{number}", NOON + number, 1e5) for number in range(KEPT + 10)]
    for each in orders:
        freshness.use(each)
    assert refused(Freshness(file), *orders)
    assert file.stat().st_size < 8192


@pytest.mark.parametrize("content", [b"", b"{", b'{"latest": "x"}', b"\xff"])
def test_a_damaged_file_locks_no_device_out(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(content)
    Freshness(file).use(order("a", NOON))
    assert refused(Freshness(file), order("a", NOON))


def test_on_a_disk_that_cannot_be_written_orders_are_still_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    freshness = Freshness(tmp_path / "file" / "orders.json")
    freshness.use(order("a", NOON))
    assert refused(freshness, order("a", NOON))


def test_of_many_orders_the_latest_are_remembered_so_that_others_may_still_cross_them(
    tmp_path: Path,
) -> None:
    freshness = Freshness(tmp_path / "orders.json")
    for number in range(KEPT + 10):
        freshness.use(order(f"m{number}", NOON + number, 1e5))
    freshness.use(order("crosses", NOON + KEPT, 1e5))
    assert refused(freshness, order("too old to tell", NOON + 9, 1e5))
