"""The contract of the store that keeps staged rollouts."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from fakes.rollouts import MemoryStore, candidate

from fl_runtime.run.aws import client
from pipelines.local.cloud import LocalCloud
from registry.policy import RolloutPolicy
from registry.rollout.aws import DynamoStore
from registry.rollout.model import FleetRecord, Rollout
from registry.rollout.ports import RolloutStore


def rollout(fleet: str, number: int = 1) -> Rollout:
    return Rollout(
        fleet=fleet,
        number=number,
        candidate=candidate(number, fleet),
        previous=None,
        policy=RolloutPolicy(),
        by="ann",
        reason="better",
        forced=False,
        state="Canary",
        started_at=float(number),
        sequence=number,
    )


class StoreContract:
    """What every store promises. Subclasses give ``store``."""

    @pytest.fixture
    def fleet(self) -> str:
        return f"contract-{uuid.uuid4().hex[:8]}"

    def test_a_fleet_that_runs_nothing_has_a_fresh_item(
        self, store: RolloutStore, fleet: str
    ) -> None:
        assert store.current(fleet) == FleetRecord(fleet=fleet)

    def test_an_item_is_replaced_only_while_it_is_as_it_was_read(
        self, store: RolloutStore, fleet: str
    ) -> None:
        nothing = store.current(fleet)
        first = msgspec.structs.replace(nothing, number=1, under_way=1)
        assert store.replace(nothing, first)
        assert not store.replace(nothing, msgspec.structs.replace(nothing, number=2))
        assert store.current(fleet) == first
        second = msgspec.structs.replace(first, under_way=0, candidate=candidate(1, fleet))
        assert store.replace(first, second)
        assert store.current(fleet) == second

    def test_a_number_is_taken_once(self, store: RolloutStore, fleet: str) -> None:
        assert store.get(fleet, 1) is None
        assert store.create(rollout(fleet))
        assert not store.create(msgspec.structs.replace(rollout(fleet), reason="another"))
        assert store.get(fleet, 1) == rollout(fleet)

    def test_a_rollout_is_overwritten_by_put(self, store: RolloutStore, fleet: str) -> None:
        store.create(rollout(fleet))
        ended = msgspec.structs.replace(rollout(fleet), state="Succeeded", switched=3)
        store.put(ended)
        assert store.get(fleet, 1) == ended

    def test_fleets_do_not_share_numbers(self, store: RolloutStore, fleet: str) -> None:
        assert store.create(rollout(fleet))
        assert store.create(rollout(f"{fleet}-b"))
        assert store.get(f"{fleet}-b", 1) == rollout(f"{fleet}-b")


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestDynamoStore(StoreContract):
    @pytest.fixture
    def store(self, reached: LocalCloud) -> DynamoStore:
        return DynamoStore(client("dynamodb"), reached.deployment.rollouts_table)

    def test_lists_hold_every_rollout_newest_first(self, store: DynamoStore, fleet: str) -> None:
        for number in (1, 2):
            store.create(rollout(fleet, number))
        store.replace(FleetRecord(fleet=fleet), FleetRecord(fleet=fleet, number=2))
        assert [r.number for r in store.rollouts() if r.fleet == fleet] == [2, 1]
        assert FleetRecord(fleet=fleet, number=2) in store.fleets()
