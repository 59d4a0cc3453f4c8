"""A run's end is signed, and packages of other pipelines are held against it."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.keys import RECORDS, Key
from fakes.provenance import Linked
from msgspec.structs import replace

from edge.protocol.records import digest
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key
from registry.model_version import DIGEST_TAG, RUN_TAG, Package
from registry.provenance import (
    RECORD,
    WEIGHTS,
    ProvenanceMismatch,
    ProvenanceMissing,
    ProvenanceRecords,
)
from registry.run_record import RUN_RECORD, RunRecords, sign_run

KEY = model_key("run-1", RUN_RECORD)


class Ended(Linked):
    """The run ``run-1``, which has ended, and a package of its model."""

    def __init__(self) -> None:
        super().__init__()
        self.package = replace(self.package, model_data="s3://b/runs/run-1/model/model.tar.gz")

    def sign(self, key: Key = RECORDS) -> Any:
        objects: Any = self.objects
        return sign_run("run-1", objects, key.sign)

    def check(self, package: Package | None = None) -> Any:
        return RunRecords(self.objects, RECORDS.verify, "b").check(package or self.package)


def tagged(package: Package, **tags: str) -> Package:
    return replace(package, metadata={**package.metadata, **tags})


def test_the_package_of_the_runs_own_model_is_admitted() -> None:
    ended = Ended()
    record = ended.sign()
    assert ended.check() == record
    assert (record.run, record.model) == (
        "run-1",
        digest(ended.objects.data[model_key("run-1", WEIGHTS)]),
    )


def test_a_run_without_a_record_or_with_a_foreign_one_admits_nothing() -> None:
    ended = Ended()
    with pytest.raises(ProvenanceMissing, match="no signed record of its end"):
        ended.check()
    ended.sign(Key())
    with pytest.raises(ProvenanceMismatch, match="did not sign"):
        ended.check()
    ended.objects.put(KEY, b"{}")
    with pytest.raises(ProvenanceMismatch, match="malformed"):
        ended.check()


def test_a_record_of_another_run_is_not_taken_for_it() -> None:
    ended = Ended()
    ended.sign()
    ended.objects.put(model_key("run-2", RUN_RECORD), ended.objects.data[KEY])
    with pytest.raises(ProvenanceMismatch, match="is the run run-1's"):
        ended.check(tagged(ended.package, **{RUN_TAG: "run-2"}))


def test_a_package_with_another_model_is_not_the_runs() -> None:
    """Its tags are written by the pipeline's role: the signed record decides."""
    ended = Ended()
    ended.sign()
    with pytest.raises(ProvenanceMismatch, match="says that its model is ffffffffffff"):
        ended.check(tagged(ended.package, **{DIGEST_TAG: "f" * 64}))
    for place in ("s3://other/model.tar.gz", "s3://b/runs/run-10/model/model.tar.gz", ""):
        with pytest.raises(ProvenanceMismatch, match="none of the files of the run run-1"):
            ended.check(replace(ended.package, model_data=place))


def test_weights_that_are_replaced_after_the_end_do_not_change_the_record() -> None:
    ended = Ended()
    first = ended.sign()
    ended.objects.put(model_key("run-1", WEIGHTS), b"others")
    ended.sign()
    assert ended.check() == first
    del ended.objects.data[model_key("run-1", WEIGHTS)]
    with pytest.raises(ObjectMissing):
        ended.sign()


def test_a_runs_record_is_no_versions_record() -> None:
    """Both are signed with the same key."""
    ended = Ended()
    ended.sign()
    ended.objects.put(model_key("run-1", RECORD), ended.objects.data[KEY])
    with pytest.raises(ProvenanceMismatch, match="malformed"):
        ProvenanceRecords(ended.objects, RECORDS.verify).read("run-1")
    ended = Ended()
    ended.give_record()
    ended.objects.put(KEY, ended.objects.data[model_key("run-1", RECORD)])
    with pytest.raises(ProvenanceMismatch, match="malformed"):
        ended.check()
