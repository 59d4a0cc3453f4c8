"""Signs records of versions and of runs: in the link function only, which alone may use the key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge.protocol.records import digest
from edge.training.app_bundle import AppError
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import model_key, spec_key
from fl_runtime.run.scoring import goal_of
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec, decode_spec
from registry.audit import SYSTEM, AuditTrail
from registry.evidence.collect import read_app, read_evidence
from registry.evidence.model import Evidence
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import DIGEST_TAG, RECORD_TAG, RUN_TAG, Package, Version
from registry.provenance import (
    EVIDENCE,
    RECORD,
    RESTORE,
    WEIGHTS,
    Provenance,
    ProvenanceMismatch,
    ProvenanceMissing,
    ProvenanceRecords,
    SignedProvenance,
)
from registry.run_record import RunRecord, sign_run
from registry.sagemaker_registry import SageMakerRegistry

LINKED = "linked"
"""Audit entry of a signed record; its details have the record."""


@dataclass(frozen=True, kw_only=True)
class RecordSigner:
    """Signs a version's record, once."""

    sign: Signer
    records: ProvenanceRecords
    objects: S3Objects
    mlflow: MlflowRegistry
    sagemaker: SageMakerRegistry
    audit: AuditTrail
    clock: Callable[[], float] = time.time

    def give_record(self, package: Package, number: str) -> Provenance:
        """Sign and store the record of a linked package (idempotent).

        A record that is there is kept. A version whose record was signed before, and is gone or
        was changed since, gets no other one: who could take it away could have changed the rest.

        Raises:
            ProvenanceMismatch: Package, MLflow version and objects do not agree, or see above.

        """
        version = self.mlflow.get(package.group, number)
        if version is None or version.model_package_arn != package.arn:
            raise ProvenanceMismatch(f"{package.arn} has no MLflow version: link it first.")
        run, name = package.metadata.get(RUN_TAG, ""), version.model_version
        earlier = self.audit.last([name], [LINKED])
        try:
            record = self.records.read(run)
        except ProvenanceMissing:
            if earlier is not None:
                raise ProvenanceMismatch(
                    f"The signed record of {name} was taken away since it was linked. {RESTORE}"
                ) from None
            record = self._agreed(package, version)
            self._store(record)
        if (record.model_package_arn, record.model_version) != (package.arn, name):
            raise ProvenanceMismatch(
                f"The record of the run {run} belongs to {record.model_version}, not to {name}."
            )
        if earlier is not None and earlier.details.get("record") != msgspec.to_builtins(record):
            raise ProvenanceMismatch(
                f"The signed record of {name} is not the one that it was linked with. {RESTORE}"
            )
        if earlier is None:
            self.audit.append(
                at=self.clock(),
                who=SYSTEM,
                what=LINKED,
                subject=name,
                why="registered",
                record=msgspec.to_builtins(record),
            )
        uri = f"s3://{self.objects.bucket}/{model_key(run, RECORD)}"
        self.sagemaker.add_metadata(package.arn, {RECORD_TAG: uri})
        return record

    def give_run_record(self, run: str) -> RunRecord:
        """Sign and store what a run has ended with (idempotent). Raises ObjectMissing."""
        return sign_run(run, self.objects, self.sign)

    def _store(self, record: Provenance) -> None:
        text = msgspec.json.encode(record)
        signed = SignedProvenance(record=text.decode(), signature=self.sign(text))
        self.objects.put(model_key(record.run, RECORD), msgspec.json.encode(signed))

    def _agreed(self, package: Package, version: Version) -> Provenance:
        """The record, if package, version, evidence and objects say the same."""
        run, name = package.metadata.get(RUN_TAG, ""), version.model_version
        try:
            specification = self.objects.get(spec_key(run))
            spec = decode_spec(specification)
            model = self.objects.digest(model_key(run, WEIGHTS))
            read_app(self.objects, spec)
        except (ObjectMissing, RunFailed, AppError) as error:
            raise ProvenanceMismatch(f"{name} gets no signed record: {error}. {RESTORE}") from error
        evidence = read_evidence(self.objects, run)
        agree = {
            "run.json": (spec.run, run),
            "the MLflow version's run": (version.run, run),
            "the package's digest of the weights": (package.metadata.get(DIGEST_TAG, ""), model),
            "the MLflow version's digest of the weights": (version.model_digest, model),
            **(_evidence_agrees(evidence, package, spec, model) if evidence is not None else {}),
        }
        wrong = [f"{what} ({found[:40]})" for what, (found, due) in agree.items() if found != due]
        if wrong:
            raise ProvenanceMismatch(
                f"{name} gets no signed record, because {' and '.join(wrong)} and the objects of "
                f"the run {run} do not agree. {RESTORE}"
            )
        metric = evidence.metric if evidence is not None else package.metric or spec.metric
        return Provenance(
            model_package_arn=package.arn,
            model_version=name,
            run=run,
            fleet=spec.fleet,
            model=model,
            app=spec.app,
            specification=digest(specification),
            evidence=self.objects.digest(model_key(run, EVIDENCE)) if evidence is not None else "",
            metric=metric,
            goal=evidence.goal if evidence is not None else spec.goal or goal_of(metric),
        )


def _evidence_agrees(
    evidence: Evidence, package: Package, spec: RunSpec, model: str
) -> dict[str, tuple[str, str]]:
    lineage = evidence.lineage
    return {
        "the evidence's package": (lineage.model_package_arn, package.arn),
        "the evidence's digest of the weights": (lineage.model_digest, model),
        "the evidence's app": (lineage.app_digest, spec.app),
        "the evidence's run": (lineage.run, spec.run),
        "the evidence's fleet": (evidence.fleet, spec.fleet),
    }
