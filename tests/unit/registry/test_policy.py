"""The policy: read from a reviewed file, kept in S3 under its old names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from fakes.objects import MemoryObjects
from fakes.trail import MemoryEntries
from support.paths import ROOT

from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.policy import (
    POLICY_KEY,
    Policy,
    PrecheckPolicy,
    RolloutPolicy,
    policy_in_force,
    put_in_force,
    read_policy,
    recorded_policy,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rollout]\nwaves = [0.5]", "the last must be 1"),
        ("[rollout]\nwaves = [0.9, 0.5, 1.0]", "must grow"),
        ("[rollout]\ncanary = 2", "canary"),
        ("[rollout]\ncanery = 0.1", "canery"),
        ("[prechecks]\nbetter_by = 0.1", "prechecks"),
        ("gates = ", "not valid TOML"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(RegistryError, match=message):
        read_policy(file)
    with pytest.raises(RegistryError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")


def test_files_and_the_stored_policy_call_the_prechecks_gates(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[gates]\nbetter_by = 0.25\n[rollout]\ncanary = 0.5\n")
    policy = read_policy(file)
    assert (policy.prechecks.better_by, policy.rollout.canary) == (0.25, 0.5)
    objects, trail = MemoryObjects(), AuditTrail(MemoryEntries())
    assert policy_in_force(objects) == Policy()
    put_in_force(objects, trail, policy, who="ann", at=1.0)
    assert policy_in_force(objects) == policy
    assert msgspec.json.decode(objects.data[POLICY_KEY])["gates"]["better_by"] == 0.25
    assert recorded_policy(objects, trail) == policy
    (entry,) = trail.entries()
    assert (entry.what, entry.who) == ("policy", "ann")
    assert entry.details["policy"]["gates"]["better_by"] == 0.25


@pytest.mark.parametrize("before", [None, Policy(prechecks=PrecheckPolicy(participants=3))])
@pytest.mark.parametrize(
    "written",
    [
        msgspec.json.encode(Policy(rollout=RolloutPolicy(canary=1.0, abort=1.0))),
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"gates": {"unknown": 1}}',
    ],
    ids=["no canary", "cut off", "no text", "nested", "unknown key"],
)
def test_a_policy_that_nobody_put_in_force_decides_nothing(
    written: bytes, before: Policy | None
) -> None:
    objects, trail = MemoryObjects(), AuditTrail(MemoryEntries())
    assert recorded_policy(objects, trail) == Policy()
    if before is not None:
        put_in_force(objects, trail, before, who="ann", at=1.0)
    objects.put(POLICY_KEY, written)
    with pytest.raises(RegistryError, match="`mledgeops policy FILE`"):
        recorded_policy(objects, trail)
    put_in_force(objects, trail, Policy(), who="ann", at=2.0)
    assert recorded_policy(objects, trail) == Policy()


def test_the_documents_example_is_what_holds_without_a_policy(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "registry.md").read_text()
    file = tmp_path / "policy.toml"
    file.write_text(text.partition("```toml\n")[2].partition("```")[0])
    assert read_policy(file) == Policy()
    assert set(tomllib.loads(file.read_text())["gates"]) == set(PrecheckPolicy.__struct_fields__)
    assert set(tomllib.loads(file.read_text())["rollout"]) == set(RolloutPolicy.__struct_fields__)


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("gates.better_by", -1.0, 1.0),
        ("gates.group_worse_by", 0.0, 1.0),
        ("gates.group_devices", 1, 10**6),
        ("gates.participants", 1, 10**6),
        ("gates.drift", 0.0, 1e6),
        ("rollout.canary", 0.0, 1.0),
        ("rollout.canary_devices", 1, 10**6),
        ("rollout.soak_seconds", 0.0, 30 * 86_400),
        ("rollout.wave_seconds", 0.5, 30 * 86_400),
        ("rollout.manifest_days", 0, 3650),
    ],
)
def test_a_policys_numbers_have_bounds(tmp_path: Path, key: str, least: float, most: float) -> None:
    table, _, name = key.partition(".")
    file = tmp_path / "policy.toml"
    for value in (least, most):
        file.write_text(f"[{table}]\n{name} = {value}")
        read_policy(file)
    for value in (least - 1, *([most + 1] if most != 10**6 and most != 1e6 else [])):
        file.write_text(f"[{table}]\n{name} = {value}")
        with pytest.raises(RegistryError, match=name):
            read_policy(file)


def test_a_rollout_has_at_most_ten_waves(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    for count in (1, 10):
        waves = [*(number / 20 for number in range(count - 1)), 1.0]
        file.write_text(f"[rollout]\nwaves = {waves}")
        assert len(read_policy(file).rollout.waves) == count
    for waves in ([], [*(number / 20 for number in range(10)), 1.0]):
        file.write_text(f"[rollout]\nwaves = {waves}")
        with pytest.raises(RegistryError, match="waves"):
            read_policy(file)


def test_a_policy_that_the_trail_holds_damaged_is_none_that_anybody_put_in_force() -> None:
    objects, trail = MemoryObjects(), AuditTrail(MemoryEntries())
    trail.append(at=1.0, who="ann", what="policy", subject="policy", why="", policy={"gates": 7})
    with pytest.raises(RegistryError, match="The policy of the audit trail is malformed"):
        recorded_policy(objects, trail)
