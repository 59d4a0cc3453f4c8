"""A version gets one record, whatever is asked later."""

from __future__ import annotations

import pytest
from fakes.keys import Key
from fakes.provenance import Linked

from fl_runtime.run.keys import model_key
from registry.model_version import RECORD_TAG
from registry.provenance import RECORD, WEIGHTS, ProvenanceMismatch
from registry.record_signer import LINKED

KEY = model_key("run-1", RECORD)


def test_a_retry_keeps_the_record_and_the_trail_has_it_once() -> None:
    linked = Linked()
    linked.give_record()
    first = linked.objects.data[KEY]
    linked.give_record()
    assert linked.objects.data[KEY] == first
    (entry,) = linked.trail.entries()
    assert (entry.what, entry.subject) == (LINKED, "x/1")
    assert entry.details["record"]["model_package_arn"] == "arn:package"
    metadata = linked.sagemaker.get("arn:package").metadata
    assert metadata[RECORD_TAG] == f"s3://b/{KEY}"


def test_a_version_whose_record_was_taken_away_gets_no_other() -> None:
    linked = Linked()
    linked.give_record()
    del linked.objects.data[KEY]
    with pytest.raises(ProvenanceMismatch, match="taken away"):
        linked.give_record()


def test_a_record_of_another_key_is_not_taken_for_the_versions() -> None:
    linked = Linked()
    linked.signer(Key()).give_record(linked.package, "1")
    with pytest.raises(ProvenanceMismatch, match="did not sign"):
        linked.give_record()


def test_changed_weights_are_not_signed_again() -> None:
    linked = Linked()
    linked.give_record()
    linked.objects.put(model_key("run-1", WEIGHTS), b"others")
    linked.give_record()
    with pytest.raises(ProvenanceMismatch):
        linked.candidates().of(linked.version)


def test_a_version_without_evidence_has_a_record_that_says_so() -> None:
    linked = Linked(with_evidence=False)
    linked.give_record()
    assert linked.records.read("run-1").evidence == ""
    assert linked.candidates().of(linked.version).metric == "loss"
