"""A model version as both registries hold it: an MLflow version and a SageMaker model package.

The names of all MLflow tags and SageMaker metadata keys are defined here, and nowhere else.
Stored names never change: packages and versions made by earlier releases carry them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from edge.protocol.messages import Goal
from fl_runtime.run.mlflow_runs import EXECUTION_TAG, RUN_ID_TAG
from fl_runtime.run.scoring import goal_of, score_of
from registry.errors import RegistryError

Approval = Literal["PendingManualApproval", "Approved", "Rejected"]
PENDING: Approval = "PendingManualApproval"
CHAMPION = "champion"
"""The MLflow alias of the version that the fleet runs."""

# Metadata keys of a SageMaker model package. The pipeline's RegisterModel step writes them, except
# for the MLflow version's name, which the Link step adds.
MLFLOW_NAME = "mlflow.model_name"
MLFLOW_VERSION = "mlflow.model_version"
MLFLOW_RUN = "mlflow.run_id"
MLFLOW_MODEL = "mlflow.model_id"
EXECUTION = EXECUTION_TAG

# Written to both: metadata keys of the package and tags of the MLflow version.
RUN_TAG = RUN_ID_TAG
METRIC = "mledgeops.metric"
GOAL = "mledgeops.goal"
SCORE_TAG = "mledgeops.score"
"""The metric with its sign turned so that more is better: scores are compared, metrics shown."""
DIGEST_TAG = "mledgeops.model_digest"
CHECKS_TAG = "mledgeops.checks"
"""``passed``, or the prechecks that failed under the policy in force at registration."""
CARD_TAG = "mledgeops.model_card"
"""S3 address of the model card."""

RECORD_TAG = "mledgeops.record"
"""S3 address of the package's signed record (:mod:`registry.provenance`); for display. Metadata
only.
"""

# Tags of the MLflow version only.
PACKAGE_TAG = "sagemaker.model_package_arn"
"""SageMaker's managed MLflow writes this tag too, with the name of the package that its own
synchronisation made.
"""
OWN_PACKAGE_TAG = "mledgeops.model_package_arn"
"""The same name, in a tag that only we write; it wins over :data:`PACKAGE_TAG`."""
APPROVAL_TAG = "mledgeops.approval"
REASON_TAG = "mledgeops.approval_reason"
SYNCED_TAG = "mledgeops.approval_synced"
"""The approval that both registries last agreed on. The side that differs from it has changed."""
ROLLOUT_TAG = "mledgeops.rollout"
"""How the version's last rollout ended, in words; for display."""
ROLLOUT_STATE_TAG = "mledgeops.rollout_state"
"""The state in which it ended, or :data:`HELD`. Versions of 0.4 and earlier lack it."""
HELD = "Held"
"""Prechecks hold the version back."""
AUDIT_TAG = "mledgeops.audit"
"""Hash of the last audit entry about the version. It reveals a trail whose end was cut off."""

TAG_LIMIT = 500
"""Characters that we write to an MLflow tag, below MLflow's own limit."""
METADATA_LIMIT = 256
"""Characters of one metadata value of a model package
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html).
"""

_ORIGIN = (RUN_TAG, SCORE_TAG, DIGEST_TAG, METRIC)
"""Package metadata that the version's tags repeat."""


class VersionName(NamedTuple):
    """``NAME/NUMBER``, the name by which people and rollouts know a version."""

    model: str
    number: str

    @classmethod
    def parse(cls, text: str) -> VersionName:
        """The inverse of ``str()``. Raises RegistryError for any other text."""
        model, _, number = text.partition("/")
        if not model or not number.isdigit():
            raise RegistryError(f"{text!r} is not the name of a model version: give NAME/NUMBER.")
        return cls(model, number)

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One SageMaker model package."""

    arn: str
    group: str
    version: int
    approval: str
    metadata: dict[str, str]
    model_data: str
    modified_by: str = ""
    """ARN of the identity that changed it last; empty where SageMaker does not say."""

    @property
    def model_version(self) -> str:
        """NAME/NUMBER of its MLflow version; empty while the package is not linked."""
        number = self.metadata.get(MLFLOW_VERSION, "")
        return str(VersionName(self.metadata.get(MLFLOW_NAME, ""), number)) if number else ""

    @property
    def metric(self) -> str:
        """Name of the metric that the model is judged by; empty when the package does not say."""
        return self.metadata.get(METRIC, "")

    @property
    def value(self) -> float | None:
        """The metric as the app reports it, or None."""
        return metric_value(self.metadata)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a registered MLflow model."""

    name: str
    version: str
    run: str
    mlflow_run_id: str
    model_package_arn: str
    approval: str
    score: float | None
    """The metric with its sign turned so that more is better."""
    model_digest: str
    champion: bool
    created_at: float
    """Unix seconds."""
    synced: str = PENDING
    """The approval that both registries last agreed on."""
    rollout: str = ""
    """How its last rollout ended, in words."""
    rollout_state: str = ""
    """The state in which it ended, or :data:`HELD`; empty: there was none."""
    checks: str = ""
    """``passed``, or the prechecks that failed at registration."""
    card: str = ""
    """S3 address of its model card."""
    metric: str = ""
    """Name of the metric that the model is judged by; empty for versions made by 0.4 or earlier."""
    value: float | None = None
    """The metric as the app reports it; None where :attr:`metric` is empty."""

    @property
    def model_version(self) -> str:
        """NAME/NUMBER."""
        return str(VersionName(self.name, self.version))


def origin_tags(package: Package) -> dict[str, str]:
    """The tags that tell where a version comes from."""
    return {
        OWN_PACKAGE_TAG: package.arn,
        **{tag: package.metadata[tag] for tag in _ORIGIN if tag in package.metadata},
    }


def rollout_tags(state: str, why: str) -> dict[str, str]:
    """The tags that tell how a version's last rollout ended."""
    said = f"{state}: {why}" if why else state
    return {ROLLOUT_TAG: said[:TAG_LIMIT], ROLLOUT_STATE_TAG: state}


def rollout_state(tags: Mapping[str, str]) -> str:
    """The state in which a version's last rollout ended.

    Version 0.4 wrote it in front of the reason only.
    """
    said = tags.get(ROLLOUT_TAG, "")
    return tags.get(ROLLOUT_STATE_TAG, said.split(": ", 1)[0])


def has_origin_of(version: Version, package: Package) -> bool:
    """Whether a version's tags agree with its package: people may edit tags."""
    expected = origin_tags(package)
    score = parse_number(expected[SCORE_TAG]) if SCORE_TAG in expected else version.score
    return (version.model_package_arn, version.run, version.model_digest, version.score) == (
        package.arn,
        expected.get(RUN_TAG, version.run),
        expected.get(DIGEST_TAG, version.model_digest),
        score,
    )


def metric_value(tags: Mapping[str, str]) -> float | None:
    """The metric as the app reports it, from the stored score; None where the metric is unknown."""
    metric, score = tags.get(METRIC, ""), parse_number(tags.get(SCORE_TAG, ""))
    if not metric or score is None:
        return None
    given = tags.get(GOAL)
    goal: Goal = "maximize" if given == "maximize" else "minimize" if given else goal_of(metric)
    return score_of(score, goal)


def parse_number(text: str) -> float | None:
    """A finite number, or None: people may edit tags."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
