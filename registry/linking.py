"""Linking a registered package: its MLflow version, each registry naming the other, and the
evidence that an approver judges by.

The pipeline's Link step does it, and ``mledgeops reconcile`` where that step was interrupted. All
input comes from the package's metadata.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from edge.logs import event
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import model_key
from registry.evidence.card import MODEL_CARD_LIMIT, model_card, page
from registry.evidence.collect import CARD, Heartbeats, collect, read_evidence
from registry.evidence.model import Evidence
from registry.evidence.prechecks import check, failed
from registry.mlflow_registry import MlflowRegistry, RunArtifacts
from registry.model_version import (
    CARD_TAG,
    CHECKS_TAG,
    GOAL,
    METRIC,
    RUN_TAG,
    TAG_LIMIT,
    Package,
    VersionName,
)
from registry.policy import PrecheckPolicy
from registry.provenance import EVIDENCE
from registry.sagemaker_registry import SageMakerRegistry

logger = logging.getLogger(__name__)

FOLDER = "evidence"
"""Folder of the MLflow run's artifacts."""


@dataclass(frozen=True, kw_only=True)
class Linking:
    """Links packages. Every step is idempotent."""

    mlflow: MlflowRegistry
    artifacts: RunArtifacts
    sagemaker: SageMakerRegistry
    objects: S3Objects
    heartbeats: Heartbeats
    prechecks: PrecheckPolicy

    def link(self, package: Package) -> str:
        """Create the package's MLflow version and write each name into the other registry.

        Returns the version's number.
        """
        number = self.mlflow.register(package)
        self.sagemaker.set_version(package.arn, VersionName(package.group, number))
        return number

    def give_evidence(self, package: Package, number: str) -> None:
        """Collect and publish a version's evidence. Raises ObjectMissing when its run did not leave
        the objects that it is made from.
        """
        self._publish(self._gather(package, str(VersionName(package.group, number))))

    def _gather(self, package: Package, model_version: str) -> Evidence:
        """Evidence that was collected before is kept: heartbeats have changed since."""
        run = package.metadata[RUN_TAG]
        found = read_evidence(self.objects, run)
        if found is not None and found.lineage.model_package_arn == package.arn:
            return found
        evidence = collect(package, model_version, self.objects, self.heartbeats)
        self.objects.put(model_key(run, EVIDENCE), msgspec.json.encode(evidence))
        return evidence

    def _publish(self, evidence: Evidence) -> None:
        """Write the card to S3, to MLflow and onto the package.

        The version's CHECKS_TAG is written last: reconcile takes it as the sign that all is done.
        """
        lineage, checks = evidence.lineage, check(evidence, self.prechecks)
        html = page(evidence, checks).encode()
        uri = f"s3://{self.objects.bucket}/{model_key(lineage.run, CARD)}"
        self.objects.put(model_key(lineage.run, CARD), html)
        files = {CARD: html, EVIDENCE: msgspec.json.encode(evidence)}
        self.artifacts.write(lineage.mlflow_run_id, FOLDER, files)
        content = msgspec.json.encode(model_card(evidence, checks, uri)).decode()
        self._set_card(lineage.model_package_arn, content)
        said = failed(checks) or "passed"
        metric = {METRIC: evidence.metric, GOAL: evidence.goal}
        self.sagemaker.add_metadata(
            lineage.model_package_arn,
            {**metric, CARD_TAG: uri, CHECKS_TAG: said},
        )
        name = VersionName.parse(evidence.model_version)
        self.mlflow.set_tags(*name, {**metric, CARD_TAG: uri, CHECKS_TAG: said[:TAG_LIMIT]})

    def _set_card(self, package: str, content: str) -> None:
        """A version is registered without its card on the package rather than not at all: the page
        in S3 and in MLflow says the same.
        """
        if len(content) > MODEL_CARD_LIMIT:
            event(
                logger, "card-too-long", logging.WARNING, package=package, characters=len(content)
            )
            return
        reason = self.sagemaker.set_card(package, content)
        if reason:
            event(logger, "card-refused", logging.WARNING, package=package, reason=reason)
