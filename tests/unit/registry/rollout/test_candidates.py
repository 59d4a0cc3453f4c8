"""What is known of a version before it goes to a fleet."""

from __future__ import annotations

import pytest
from fakes.evidence import comparison, evidence, leave, package
from fakes.objects import MemoryObjects
from fakes.registries import MemoryModels, MemorySageMaker
from msgspec import json
from msgspec.structs import replace

from fl_runtime.run.keys import model_key
from registry.errors import RegistryError
from registry.evidence.collect import EVIDENCE
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import Version
from registry.policy import POLICY_KEY, Policy, PrecheckPolicy
from registry.rollout.candidates import WEIGHTS, Candidates
from registry.sagemaker_registry import SageMakerRegistry


class Bucket(MemoryObjects):
    def size(self, key: str) -> int:
        return len(self.get(key))


def made() -> tuple[Candidates, Bucket, Version]:
    objects, sagemaker, models = Bucket(), MemorySageMaker(), MlflowRegistry(MemoryModels())
    leave(objects, comparison())
    objects.put(model_key("run-1", WEIGHTS), b"weights")
    sagemaker.add("arn:package", **package().metadata)
    models.register(package())
    candidates = Candidates(objects, SageMakerRegistry(sagemaker))  # type: ignore[arg-type]
    return candidates, objects, models.versions()[0]


def test_a_candidate_has_all_that_a_manifest_says() -> None:
    candidates, _, version = made()
    found = candidates.of(version)
    assert (found.fleet, found.model_version, found.digest, found.size) == (
        "f",
        "x/1",
        "d" * 64,
        len(b"weights"),
    )
    assert (found.metric, found.goal, found.key) == (
        "loss",
        "minimize",
        model_key("run-1", WEIGHTS),
    )


def test_the_goal_is_that_of_the_evidence() -> None:
    candidates, objects, version = made()
    collected = evidence(goal="maximize")
    objects.put(model_key("run-1", EVIDENCE), json.encode(collected))
    assert candidates.of(version).goal == "maximize"
    assert candidates.evidence(version) == collected


def test_prechecks_are_those_of_the_policy_in_force() -> None:
    candidates, objects, version = made()
    objects.put(model_key("run-1", EVIDENCE), json.encode(evidence()))
    assert all(check.passed for check in candidates.checks(version))
    policy = Policy(prechecks=PrecheckPolicy(participants=7))
    objects.put(POLICY_KEY, json.encode(policy))
    wrong = [check.name for check in candidates.checks(version) if not check.passed]
    assert wrong == ["participants"]


def test_a_version_without_evidence_fails_one_check() -> None:
    candidates, _, version = made()
    (check,) = candidates.checks(version)
    assert (check.name, check.passed) == ("evidence", False)


def test_a_version_whose_run_is_unknown_or_gone_is_refused() -> None:
    candidates, _, version = made()
    with pytest.raises(RegistryError, match="does not say which run made it"):
        candidates.of(replace(version, run="../other"))
    with pytest.raises(RegistryError, match="The run that made x/1 is gone"):
        candidates.of(replace(version, run="run-9"))
