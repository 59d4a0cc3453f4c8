"""What is known of a version before it goes to a fleet."""

from __future__ import annotations

import pytest
from fakes.evidence import evidence
from fakes.provenance import MODEL, Bucket, Linked
from msgspec import json
from msgspec.structs import replace

from edge.protocol.records import digest
from fl_runtime.run.keys import model_key
from registry.errors import RegistryError
from registry.model_version import Version
from registry.policy import Policy, PrecheckPolicy, put_in_force
from registry.provenance import EVIDENCE, WEIGHTS, ProvenanceMismatch
from registry.rollout.candidates import Candidates


def made() -> tuple[Candidates, Bucket, Version]:
    linked = Linked()
    linked.give_record()
    return linked.candidates(), linked.objects, linked.version


def test_a_candidate_has_all_that_a_manifest_says() -> None:
    candidates, _, version = made()
    found = candidates.of(version)
    assert (found.fleet, found.model_version, found.digest, found.size) == (
        "f",
        "x/1",
        digest(MODEL),
        len(MODEL),
    )
    assert (found.metric, found.goal, found.key) == (
        "loss",
        "minimize",
        model_key("run-1", WEIGHTS),
    )


def test_the_approval_and_who_gave_it_are_sagemakers() -> None:
    linked = Linked()
    linked.packages.packages["arn:package"] |= {
        "ModelApprovalStatus": "Approved",
        "LastModifiedBy": {"IamIdentity": {"Arn": "arn:ann"}},
    }
    candidates = linked.candidates()
    assert candidates.approval(linked.version) == "Approved"
    assert candidates.approver(linked.version) == "arn:ann"
    assert linked.version.approval == "PendingManualApproval"


def test_prechecks_are_those_of_the_policy_in_force() -> None:
    linked = Linked()
    linked.give_record()
    candidates, objects, version = linked.candidates(), linked.objects, linked.version
    objects.put(model_key("run-1", EVIDENCE), json.encode(evidence()))
    assert all(check.passed for check in candidates.checks(version))
    policy = Policy(prechecks=PrecheckPolicy(participants=7))
    put_in_force(objects, linked.trail, policy, who="ann", at=1.0)
    wrong = [check.name for check in candidates.checks(version) if not check.passed]
    assert wrong == ["participants"]


def test_a_version_without_evidence_fails_one_check() -> None:
    linked = Linked(with_evidence=False)
    candidates, version = linked.candidates(), linked.version
    (check,) = candidates.checks(version)
    assert (check.name, check.passed) == ("evidence", False)


def test_a_version_whose_run_is_unknown_or_gone_is_refused() -> None:
    candidates, _, version = made()
    with pytest.raises(RegistryError, match="does not say which run made it"):
        candidates.of(replace(version, run="../other"))
    with pytest.raises(RegistryError, match="run-9 made has no signed record"):
        candidates.of(replace(version, run="run-9"))


def test_a_candidate_that_was_verified_is_not_read_again() -> None:
    candidates, objects, version = made()
    found = candidates.of(version)
    candidates.verify(found)
    objects.data.clear()
    candidates.verify(found)
    with pytest.raises(RegistryError):
        candidates.verify(replace(found, size=found.size + 1))


def test_a_version_whose_weights_are_gone_is_not_what_was_linked() -> None:
    candidates, objects, version = made()
    del objects.data[model_key("run-1", WEIGHTS)]
    with pytest.raises(ProvenanceMismatch, match="and was linked"):
        candidates.of(version)
