"""What a run ended with, signed when it ends.

A team's own pipeline registers its package when it likes, and its role writes the package's tags.
So the run's weights are hashed and signed as soon as the run has ended, by the link function, which
alone may use the key; the package's event links only what this record names (decision 46).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge.protocol.names import Digest, Name
from edge.protocol.records import digest
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import decode_spec
from registry.model_version import DIGEST_TAG, RUN_TAG, Package
from registry.provenance import (
    WEIGHTS,
    HashedObjects,
    ProvenanceMismatch,
    SignedProvenance,
    read_signed,
)

RUN_RECORD = "run-record.json"
"""Its file name among those of the final model."""


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run's end. The kind keeps it from being taken for a version's record."""

    v: Literal[1] = 1
    kind: Literal["run"] = "run"
    run: Name
    fleet: Name
    app: Digest
    specification: Digest
    """SHA-256 of ``run.json``."""
    model: Digest
    """SHA-256 of the weights."""


def sign_run(run: str, objects: S3Objects, sign: Signer) -> RunRecord:
    """Sign what a run has left (idempotent: the first record stays). Raises ObjectMissing."""
    specification = objects.get(spec_key(run))
    spec = decode_spec(specification)
    record = RunRecord(
        run=run,
        fleet=spec.fleet,
        app=spec.app,
        specification=digest(specification),
        model=objects.digest(model_key(run, WEIGHTS)),
    )
    key = model_key(run, RUN_RECORD)
    try:
        objects.get(key)
    except ObjectMissing:
        text = msgspec.json.encode(record)
        signed = SignedProvenance(record=text.decode(), signature=sign(text))
        objects.put(key, msgspec.json.encode(signed))
    return record


@dataclass(frozen=True)
class RunRecords:
    """Reads signed records, and holds packages against them."""

    objects: HashedObjects
    verify: Callable[[bytes, str], bool]
    bucket: str

    def read(self, run: str) -> RunRecord:
        """A run's record.

        Raises:
            ProvenanceMissing: There is none.
            ProvenanceMismatch: The link function has not signed what is there.

        """
        key = model_key(run, RUN_RECORD)
        missing = (
            f"The run {run} has no signed record of its end: it ended without a model, or "
            "before this version was deployed. `mledgeops reconcile` links its package."
        )
        signer = "The link function"
        record = read_signed(self, key, RunRecord, missing=missing, signer=signer, advice="")
        if record.run != run:
            raise ProvenanceMismatch(f"The record {key} is the run {record.run}'s.")
        return record

    def check(self, package: Package) -> RunRecord:
        """The record of a package's run, if it names the package's model.

        Raises:
            ProvenanceMissing: The run has no record.
            ProvenanceMismatch: The package does not have the run's model.

        """
        record = self.read(package.metadata.get(RUN_TAG, ""))
        claimed = package.metadata.get(DIGEST_TAG, "")
        if claimed != record.model:
            raise ProvenanceMismatch(
                f"{package.arn} is not linked: it says that its model is {claimed[:12]}, and the "
                f"run {record.run} ended with {record.model[:12]}."
            )
        own = f"s3://{self.bucket}/{model_key(record.run, '')}"
        if not package.model_data.startswith(own):
            raise ProvenanceMismatch(
                f"{package.arn} is not linked: its model is {package.model_data}, which is none of "
                f"the files of the run {record.run} ({own})."
            )
        return record
