"""Provenance records: what the link step linked, signed with a key that only it may use.

MLflow tags, a package's metadata and S3 objects can be changed by more than one role. A rollout
therefore takes a model's digests from the signed record, and compares the objects with them; tags
and metadata are for display (decision 30).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Goal
from edge.protocol.names import Digest, ModelVersion, Name
from edge.protocol.text import parse_json
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.signing import Verifier
from registry.errors import RegistryError

Record = TypeVar("Record")
RECORD = "provenance.json"
WEIGHTS = "model.safetensors"
EVIDENCE = "evidence.json"
"""File names among those of the final model."""


RECORD_LIMIT = 4096
"""Bytes of a record: KMS signs no longer text."""


class ProvenanceMissing(RegistryError):
    """A version has no signed record: its link was interrupted, or 0.4 or earlier linked it."""

    code = "provenance-missing"


class ProvenanceMismatch(RegistryError):
    """What is there is not what was linked."""

    code = "provenance-mismatch"


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version and what it consists of."""

    v: Literal[1] = 1
    model_package_arn: str
    model_version: ModelVersion
    run: Name
    fleet: Name
    model: Digest
    """SHA-256 of the weights."""
    app: Digest
    specification: Digest
    """SHA-256 of the run's ``run.json``."""
    evidence: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    """SHA-256 of the evidence; empty: the run left none."""
    metric: Annotated[str, msgspec.Meta(max_length=250)]
    goal: Goal


class SignedProvenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The object ``runs/RUN/model/provenance.json``.

    ``record`` is the signed text itself, so that no JSON encoder has to reproduce its bytes.
    """

    record: Annotated[str, msgspec.Meta(max_length=RECORD_LIMIT)]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{8,1000}={0,2}\Z")]


class HashedObjects(Protocol):
    """Objects by key, and their digests."""

    def get(self, key: str, limit: int | None = None) -> bytes:
        """An object. Raises ObjectMissing."""

    def digest(self, key: str) -> str:
        """SHA-256 of an object in hex. Raises ObjectMissing."""


class SignedReader(Protocol):
    """Where signed records lie, and what tells whether a signature is good."""

    @property
    def objects(self) -> HashedObjects:
        """Holds the records."""

    @property
    def verify(self) -> Verifier:
        """Takes a text and its signature."""


def read_signed(
    reader: SignedReader, key: str, kind: type[Record], *, missing: str, signer: str, advice: str
) -> Record:
    """Read a signed record.

    Args:
        reader: Where it lies.
        key: Of the object with the text and its signature.
        kind: What the text holds.
        missing: What to say where there is none.
        signer: Who should have signed it, for the message.
        advice: What to do about one that is wrong; begins with a space, or is empty.

    Raises:
        ProvenanceMissing: There is none.
        ProvenanceMismatch: It is not signed, or malformed.

    """
    try:
        # In JSON each character may take six bytes.
        data = reader.objects.get(key, 8 * RECORD_LIMIT)
        signed: SignedProvenance = parse_json(data, SignedProvenance, "The record")
        text = signed.record.encode()
        if len(text) > RECORD_LIMIT or not reader.verify(text, signed.signature):
            raise ProvenanceMismatch(f"{signer} did not sign the record {key}.{advice}")
        record: Record = parse_json(text, kind, "The record")
    except ObjectMissing as error:
        raise ProvenanceMissing(missing) from error
    except ProtocolError as error:
        raise ProvenanceMismatch(f"The record {key} is malformed.{advice}") from error
    return record


@dataclass(frozen=True)
class ProvenanceRecords:
    """Reads signed records and holds what is there against them."""

    objects: HashedObjects
    verify: Verifier

    def read(self, run: str) -> Provenance:
        """The record of the version that a run made. Raises ProvenanceMissing, and
        ProvenanceMismatch for one that the link step has not signed.
        """
        key = model_key(run, RECORD)
        missing = (
            f"The version that the run {run} made has no signed record: its link was "
            "interrupted, or version 0.4 or earlier linked it. `mledgeops reconcile` gives it "
            "one if everything agrees."
        )
        signer, advice = "The link step", f" {RESTORE}"
        return read_signed(self, key, Provenance, missing=missing, signer=signer, advice=advice)

    def check(self, record: Provenance) -> None:
        """Hash the objects of a version. Raises ProvenanceMismatch for one that differs from the
        record, or is gone.
        """
        parts = {spec_key(record.run): record.specification}
        parts[model_key(record.run, WEIGHTS)] = record.model
        if record.evidence:
            parts[model_key(record.run, EVIDENCE)] = record.evidence
        for key, linked in parts.items():
            try:
                found = self.objects.digest(key)
            except ObjectMissing as error:
                raise ProvenanceMismatch(f"{error}, and was linked. {RESTORE}") from error
            if found != linked:
                raise ProvenanceMismatch(
                    f"{key} is not what was linked as {record.model_version}: its digest is "
                    f"{found[:12]}, the signed record says {linked[:12]}. {RESTORE}"
                )


RESTORE = (
    "Restore the earlier version of the object in S3, or train a new model with `mledgeops run`."
)
