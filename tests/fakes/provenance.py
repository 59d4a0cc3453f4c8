"""A linked version with its signed record, in memory."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from edge.protocol.records import digest
from fakes.evidence import comparison, evidence, leave, package
from fakes.keys import RECORDS, Key
from fakes.objects import MemoryObjects
from fakes.registries import MemoryModels, MemorySageMaker
from fakes.trail import MemoryEntries
from fl_runtime.run.keys import model_key
from registry.audit import AuditTrail
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import DIGEST_TAG, Package, Version
from registry.policy import recorded_policy
from registry.provenance import EVIDENCE, WEIGHTS, ProvenanceRecords
from registry.record_signer import RecordSigner
from registry.rollout.candidates import Candidates
from registry.sagemaker_registry import SageMakerRegistry

MODEL = b"weights"


class Bucket(MemoryObjects):
    bucket = "b"


class Linked:
    """Version x/1 of the run ``run-1``, linked but for its record."""

    def __init__(self, *, with_evidence: bool = True) -> None:
        self.objects, self.trail = Bucket(), AuditTrail(MemoryEntries())
        self.models, self.packages = MemoryModels(), MemorySageMaker()
        self.mlflow, self.sagemaker = MlflowRegistry(self.models), SageMakerRegistry(self.packages)
        leave(self.objects, comparison())
        self.objects.put(model_key("run-1", WEIGHTS), MODEL)
        if with_evidence:
            collected = evidence()
            lineage = msgspec.structs.replace(collected.lineage, model_digest=digest(MODEL))
            collected = msgspec.structs.replace(collected, lineage=lineage)
            self.objects.put(model_key("run-1", EVIDENCE), msgspec.json.encode(collected))
        self.package: Package = package(**{DIGEST_TAG: digest(MODEL)})
        self.packages.add(self.package.arn, **self.package.metadata)
        self.mlflow.register(self.package)
        self.records = ProvenanceRecords(self.objects, RECORDS.verify)

    @property
    def version(self) -> Version:
        return self.mlflow.versions()[0]

    def signer(self, key: Key = RECORDS) -> RecordSigner:
        objects: Any = self.objects
        return RecordSigner(
            sign=key.sign,
            records=self.records,
            objects=objects,
            mlflow=self.mlflow,
            sagemaker=self.sagemaker,
            audit=self.trail,
            clock=lambda: 1.0,
        )

    def give_record(self) -> None:
        self.signer().give_record(self.sagemaker.get(self.package.arn), "1")

    def candidates(self) -> Candidates:
        objects: Any = self.objects
        policy = functools.partial(recorded_policy, self.objects, self.trail)
        return Candidates(objects, self.sagemaker, self.records, policy)
