"""Versions through an MlflowClient: registered once, read newest first, one champion."""

from __future__ import annotations

from fakes.evidence import package
from fakes.registries import MemoryModels
from msgspec.structs import replace

from registry.mlflow_registry import MlflowRegistry, RunArtifacts
from registry.model_version import (
    APPROVAL_TAG,
    AUDIT_TAG,
    OWN_PACKAGE_TAG,
    PACKAGE_TAG,
    PENDING,
    SYNCED_TAG,
)


def test_a_package_is_registered_once_with_all_that_it_says() -> None:
    models = MemoryModels()
    registry = MlflowRegistry(models)
    given = replace(package(), approval="Approved")
    assert registry.register(given) == registry.register(given) == "1"
    (version,) = registry.versions()
    assert (version.model_version, version.run, version.mlflow_run_id) == ("x/1", "run-1", "m" * 32)
    assert (version.metric, version.score, version.value) == ("loss", -1.0, 1.0)
    assert (version.approval, version.synced) == ("Approved", PENDING), "reconcile hears of it"
    assert registry.register(replace(given, arn="arn:2")) == "2"


def test_our_own_tag_wins_over_the_one_that_managed_mlflow_writes_too() -> None:
    models = MemoryModels()
    registry = MlflowRegistry(models)
    registry.register(package())
    models.set_model_version_tag("x", "1", PACKAGE_TAG, "arn:theirs")
    assert registry.of_package("x", "arn:package") is not None
    models.set_model_version_tag("x", "1", OWN_PACKAGE_TAG, "")
    assert registry.of_package("x", "arn:package") is None


def test_versions_are_read_newest_first_and_one_by_itself() -> None:
    models = MemoryModels()
    registry = MlflowRegistry(models)
    for arn in ("arn:1", "arn:2", "arn:3"):
        registry.register(replace(package(), arn=arn))
    assert [version.version for version in registry.versions("x")] == ["3", "2", "1"]
    assert registry.versions("another") == []
    assert registry.get("x", "2") == registry.versions()[1]
    assert registry.get("x", "9") is None
    models.items["x", "3"].tags[OWN_PACKAGE_TAG] = "arn:1"
    found = registry.of_package("x", "arn:1")
    assert found is not None and found.version == "1", "of two the older one counts"


def test_there_is_one_champion() -> None:
    registry = MlflowRegistry(MemoryModels())
    for arn in ("arn:1", "arn:2"):
        registry.register(replace(package(), arn=arn))
    assert registry.champion("x") is None
    for number in ("1", "2"):
        registry.set_champion("x", number)
        assert [v.version for v in registry.versions() if v.champion] == [number]
    registry.drop_champion("x")
    assert registry.champion("x") is None


def test_tags_and_the_heads_of_the_audit_trail() -> None:
    registry = MlflowRegistry(MemoryModels())
    registry.register(package())
    assert registry.audit_heads() == []
    registry.set_tags("x", "1", {APPROVAL_TAG: "Rejected", SYNCED_TAG: "Rejected", AUDIT_TAG: "h"})
    assert registry.versions()[0].approval == registry.versions()[0].synced == "Rejected"
    assert registry.audit_heads() == ["h"]


def test_files_become_artifacts_of_a_run() -> None:
    models = MemoryModels()
    RunArtifacts(models).write("m1", "evidence", {"card.html": b"<p>", "evidence.json": b"{}"})
    assert models.artifacts == {
        "m1/evidence/card.html": b"<p>",
        "m1/evidence/evidence.json": b"{}",
    }
