"""What is signed is what was linked: no change of tags, metadata or objects reaches a device."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from fakes.keys import RECORDS, Key
from fakes.provenance import MODEL, Linked

from edge.protocol.records import digest
from fl_runtime.run.keys import model_key, spec_key
from registry.errors import RegistryError
from registry.model_version import DIGEST_TAG, RUN_TAG
from registry.provenance import (
    EVIDENCE,
    RECORD,
    WEIGHTS,
    ProvenanceMismatch,
    ProvenanceMissing,
    SignedProvenance,
)

OTHER = b"weights of somebody else"


def test_one_tag_and_one_object_changed_install_nothing() -> None:
    """The attack: the tag says the digest of other weights, which lie where the model's lay."""
    linked = Linked()
    linked.give_record()
    before = linked.candidates().of(linked.version)
    assert (before.digest, before.model_version, before.fleet) == (digest(MODEL), "x/1", "f")
    linked.mlflow.set_tags("x", "1", {DIGEST_TAG: digest(OTHER)})
    assert linked.candidates().of(linked.version) == before, "a tag is for display"
    linked.objects.put(model_key("run-1", WEIGHTS), OTHER)
    with pytest.raises(ProvenanceMismatch, match="safetensors is not what was linked as x/1"):
        linked.candidates().of(linked.version)
    with pytest.raises(ProvenanceMismatch):
        linked.candidates().verify(before)


@pytest.mark.parametrize("key", [spec_key("run-1"), model_key("run-1", EVIDENCE)])
@pytest.mark.parametrize("data", [b"{}", None])
def test_a_changed_or_missing_object_is_refused(key: str, data: bytes | None) -> None:
    linked = Linked()
    linked.give_record()
    if data is None:
        del linked.objects.data[key]
    else:
        linked.objects.put(key, data)
    with pytest.raises(ProvenanceMismatch, match="Restore the earlier version"):
        linked.candidates().of(linked.version)


def test_a_record_that_the_link_step_did_not_sign_counts_for_nothing() -> None:
    linked = Linked()
    linked.give_record()
    key = model_key("run-1", RECORD)
    signed = msgspec.json.decode(linked.objects.data[key], type=SignedProvenance)
    forged = signed.record.replace(digest(MODEL), digest(OTHER))
    for other in (
        msgspec.structs.replace(signed, record=forged),
        SignedProvenance(record=forged, signature=Key().sign(forged.encode())),
        SignedProvenance(record="{}", signature=RECORDS.sign(b"{}")),
    ):
        linked.objects.put(key, msgspec.json.encode(other))
        with pytest.raises(ProvenanceMismatch):
            linked.records.read("run-1")
    linked.objects.put(key, b"{")
    with pytest.raises(ProvenanceMismatch, match="malformed"):
        linked.records.read("run-1")


def test_a_version_leads_to_its_own_record_only() -> None:
    linked = Linked()
    linked.give_record()
    linked.packages.add("arn:other", **linked.package.metadata)
    other = msgspec.structs.replace(linked.version, model_package_arn="arn:other")
    with pytest.raises(ProvenanceMismatch, match="`mledgeops reconcile` repairs it"):
        linked.candidates().of(other)
    candidate = linked.candidates().of(linked.version)
    for changes in ({"digest": digest(OTHER)}, {"app": "b" * 64}, {"goal": "maximize"}):
        with pytest.raises(ProvenanceMismatch, match="What is stored of x/1"):
            linked.candidates().verify(msgspec.structs.replace(candidate, **changes))


def test_a_version_without_a_record_says_what_gives_it_one() -> None:
    with pytest.raises(ProvenanceMissing, match="`mledgeops reconcile` gives it one"):
        Linked().candidates().of(Linked().version)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda it: it.objects.put(model_key("run-1", WEIGHTS), OTHER), "digest of the weights"),
        (
            lambda it: it.mlflow.set_tags("x", "1", {DIGEST_TAG: "e" * 64}),
            "version's digest",
        ),
        (lambda it: it.mlflow.set_tags("x", "1", {RUN_TAG: "run-9"}), "MLflow version's run"),
        (
            lambda it: it.sagemaker.add_metadata("arn:package", {DIGEST_TAG: "e" * 64}),
            "package's digest",
        ),
        (lambda it: it.objects.put(_app(it), b"zip"), "app bundle|zip"),
        (lambda it: it.objects.data.pop(spec_key("run-1")), "is not there|run.json"),
    ],
)
def test_a_record_is_signed_only_when_everything_agrees(
    change: Callable[[Linked], object], what: str
) -> None:
    linked = Linked()
    change(linked)
    with pytest.raises(RegistryError, match=what):
        linked.give_record()
    assert model_key("run-1", RECORD) not in linked.objects.data


def _app(linked: Linked) -> str:
    return next(key for key in linked.objects.data if key.startswith("apps/"))


@pytest.mark.parametrize(
    "written",
    [
        b"\xff",
        b"[" * 20_000,
        b'{"record": "\\ud800", "signature": "c2lnbmVk"}',
        b'{"record": "{}", "signature": ""}',
        b'{"record": "{}", "signature": "\xc3\xa9"}',
        msgspec.json.encode({"record": "\u00e9" * 4000, "signature": "c2lnbmVkKio="}),
        msgspec.json.encode({"record": "x" * 5000, "signature": "c2lnbmVkKio="}),
    ],
    ids=["no text", "nested", "surrogate", "unsigned", "no base64", "long in bytes", "long"],
)
def test_whatever_lies_in_a_records_place_is_a_mismatch(written: bytes) -> None:
    linked = Linked()
    linked.give_record()
    linked.objects.put(model_key("run-1", RECORD), written)
    with pytest.raises(ProvenanceMismatch):
        linked.records.read("run-1")


def test_a_record_of_a_gigabyte_is_not_read() -> None:
    linked = Linked()
    linked.objects.put(model_key("run-1", RECORD), bytes(10**6))
    with pytest.raises(ProvenanceMissing):
        linked.records.read("run-1")
