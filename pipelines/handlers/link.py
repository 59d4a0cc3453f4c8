"""After RegisterModel: the MLflow version, each registry naming the other, and the evidence that an approver judges by."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from edge.logs import event
from fl_runtime.aws import S3Objects, client, setting
from fl_runtime.eligibility import rows_of
from fl_runtime.ports import ObjectStore
from fl_runtime.run_spec import model_key
from pipelines.evidence import CARD, EVIDENCE, Heartbeats, Packaged, collect, read_evidence
from pipelines.handlers.wiring import set_up_logs
from pipelines.rollouts import policy_in_force
from registry.card import MODEL_CARD_LIMIT, model_card, page
from registry.evidence import Evidence
from registry.gates import check, failed
from registry.mlflow_registry import APPROVAL_TAG, CARD_TAG, CHECKS_TAG, DIGEST_TAG, PACKAGE_TAG, RUN_TAG, SCORE_TAG, MlflowRegistry
from registry.policy import Policy
from registry.sagemaker_registry import SageMakerRegistry

logger = logging.getLogger(__name__)

FOLDER = "evidence"
"""Of the MLflow run's artifacts."""
TEXT_LIMIT = 256
"""Characters of a package's metadata value."""
_SAME = ("model_package_arn", "model_digest", "model_data", "mlflow_run_id", "execution_arn")


def link(request: Mapping[str, Any], mlflow: MlflowRegistry, sagemaker: SageMakerRegistry) -> str:
    """Make the MLflow version of a package and write both names; safe to repeat."""
    tags = {
        PACKAGE_TAG: request["model_package_arn"], RUN_TAG: request["run"], SCORE_TAG: str(request["score"]),
        DIGEST_TAG: request["model_digest"], APPROVAL_TAG: "PendingManualApproval",
    }  # fmt: skip
    name = request["model_name"]
    version = mlflow.register(name, mlflow_run_id=request["mlflow_run_id"], mlflow_model_id=request["mlflow_model_id"], tags=tags)
    sagemaker.set_version(request["model_package_arn"], name, version)
    return version


def gather(request: Mapping[str, Any], version: str, objects: ObjectStore, heartbeats: Heartbeats) -> Evidence:
    """The version's evidence: what was collected before, or now. A step that is repeated must not find other heartbeats."""
    found = read_evidence(objects, request["run"])
    if found is not None and found.lineage.model_package_arn == request["model_package_arn"]:
        return found
    evidence = collect(
        Packaged(
            model_version=f"{request['model_name']}/{version}", run=request["run"], metric=request["metric"],
            value=float(request["value"]), **{name: request[name] for name in _SAME},
        ),
        objects, heartbeats,
    )  # fmt: skip
    objects.put(model_key(request["run"], EVIDENCE), msgspec.json.encode(evidence))
    return evidence


def publish(evidence: Evidence, policy: Policy, objects: S3Objects, mlflow: MlflowRegistry, sagemaker: SageMakerRegistry) -> None:
    """The card into S3, into MLflow, and onto the package."""
    lineage, checks = evidence.lineage, check(evidence, policy.gates)
    html, uri = page(evidence, checks).encode(), f"s3://{objects.bucket}/{model_key(lineage.run, CARD)}"
    objects.put(model_key(lineage.run, CARD), html)
    mlflow.log_files(lineage.mlflow_run_id, {CARD: html, EVIDENCE: msgspec.json.encode(evidence)}, FOLDER)
    content = msgspec.json.encode(model_card(evidence, checks, uri)).decode()
    if len(content) <= MODEL_CARD_LIMIT:
        sagemaker.set_card(lineage.model_package_arn, content)
    else:
        event(logger, "card-too-long", logging.WARNING, run=lineage.run, characters=len(content))
    said = failed(checks) or "passed"
    sagemaker.add_metadata(lineage.model_package_arn, {CARD_TAG: uri, CHECKS_TAG: said[:TEXT_LIMIT]})
    name, _, number = evidence.model_version.partition("/")
    mlflow.set_tags(name, number, {CARD_TAG: uri, CHECKS_TAG: said[:500]})


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Link step."""
    set_up_logs()
    mlflow, sagemaker = MlflowRegistry(), SageMakerRegistry(client("sagemaker"))
    objects = S3Objects(client("s3"), setting("MLEDGEOPS_BUCKET"))
    version = link(request, mlflow, sagemaker)
    evidence = gather(request, version, objects, lambda fleet: rows_of(client("dynamodb"), setting("MLEDGEOPS_DEVICES_TABLE"), fleet))
    publish(evidence, policy_in_force(objects), objects, mlflow, sagemaker)
    return {"model_version": version}
