"""What follows a package's registration: its MLflow version, each registry naming the other, and
the evidence that an approver judges by.

The pipeline's Link step does it, and ``mledgeops reconcile`` where that step was interrupted. The
package says all it takes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from edge.logs import event
from fl_runtime.run.aws import S3Objects
from fl_runtime.run.keys import model_key
from registry.evidence.card import MODEL_CARD_LIMIT, model_card, page
from registry.evidence.collect import CARD, EVIDENCE, Heartbeats, collect, read_evidence
from registry.evidence.model import Evidence
from registry.evidence.prechecks import check, failed
from registry.mlflow_registry import CARD_TAG, CHECKS_TAG, RUN_TAG, MlflowRegistry
from registry.policy import Policy
from registry.sagemaker_registry import Package, SageMakerRegistry

logger = logging.getLogger(__name__)

FOLDER = "evidence"
"""Of the MLflow run's artifacts."""
TEXT_LIMIT = 256
"""Characters of a package's metadata value."""


@dataclass(frozen=True, kw_only=True)
class Linking:
    """Links packages. All of it is safe to repeat."""

    mlflow: MlflowRegistry
    sagemaker: SageMakerRegistry
    objects: S3Objects
    heartbeats: Heartbeats
    policy: Policy

    def link(self, package: Package) -> str:
        """Make the package's MLflow version and write both names; the version's number."""
        number = self.mlflow.register(package)
        self.sagemaker.set_version(package.arn, package.group, number)
        return number

    def give_evidence(self, package: Package, number: str) -> None:
        """Collect a version's evidence and publish it. Raises ObjectMissing when its run did not
        leave what that takes.
        """
        self._publish(self._gather(package, f"{package.group}/{number}"))

    def _gather(self, package: Package, model_version: str) -> Evidence:
        """What was collected before, or now: a step that is repeated must not find other
        heartbeats.
        """
        run = package.metadata[RUN_TAG]
        found = read_evidence(self.objects, run)
        if found is not None and found.lineage.model_package_arn == package.arn:
            return found
        evidence = collect(package, model_version, self.objects, self.heartbeats)
        self.objects.put(model_key(run, EVIDENCE), msgspec.json.encode(evidence))
        return evidence

    def _publish(self, evidence: Evidence) -> None:
        """The card into S3, into MLflow, and onto the package; the version's tag last, by which it
        counts as done.
        """
        lineage, checks = evidence.lineage, check(evidence, self.policy.gates)
        html, uri = (
            page(evidence, checks).encode(),
            f"s3://{self.objects.bucket}/{model_key(lineage.run, CARD)}",
        )
        self.objects.put(model_key(lineage.run, CARD), html)
        self.mlflow.log_files(
            lineage.mlflow_run_id, {CARD: html, EVIDENCE: msgspec.json.encode(evidence)}, FOLDER
        )
        content = msgspec.json.encode(model_card(evidence, checks, uri)).decode()
        if len(content) <= MODEL_CARD_LIMIT:
            self.sagemaker.set_card(lineage.model_package_arn, content)
        else:
            event(
                logger, "card-too-long", logging.WARNING, run=lineage.run, characters=len(content)
            )
        said = failed(checks) or "passed"
        self.sagemaker.add_metadata(
            lineage.model_package_arn, {CARD_TAG: uri, CHECKS_TAG: said[:TEXT_LIMIT]}
        )
        name, _, number = evidence.model_version.partition("/")
        self.mlflow.set_tags(name, number, {CARD_TAG: uri, CHECKS_TAG: said[:500]})
