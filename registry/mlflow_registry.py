"""MLflow's side: versions, tags, the alias ``champion``."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from registry.sagemaker_registry import MLFLOW_MODEL, MLFLOW_RUN, PENDING, Package

CHAMPION = "champion"
PACKAGE_TAG = "sagemaker.model_package_arn"
"""The tag that SageMaker's managed MLflow uses too: names are read from it, never derived."""
OWN_PACKAGE_TAG = "mledgeops.model_package_arn"
"""The same, where nobody else writes: managed MLflow's own synchronisation puts its own package's
name into the other one.
"""
RUN_TAG = "mledgeops.run_id"
SCORE_TAG = "mledgeops.score"
DIGEST_TAG = "mledgeops.model_digest"
APPROVAL_TAG = "mledgeops.approval"
REASON_TAG = "mledgeops.approval_reason"
SYNCED_TAG = "mledgeops.approval_synced"
"""The approval as both registries last agreed on it: who differs from it has changed."""
CHECKS_TAG = "mledgeops.checks"
"""``passed``, or which pre-checks failed, as the policy was when the version was registered."""
CARD_TAG = "mledgeops.model_card"
"""Where the version's model card lies."""
ROLLOUT_TAG = "mledgeops.rollout"
"""How the version's last rollout ended."""
AUDIT_TAG = "mledgeops.audit"
"""Hash of the last audit entry about the version: the trail's end cannot be cut off unseen."""

ORIGIN = (RUN_TAG, SCORE_TAG, DIGEST_TAG)
"""What a version's tags repeat of its package's metadata."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a registered model, as MLflow knows it."""

    name: str
    version: str
    run: str
    mlflow_run_id: str
    model_package_arn: str
    approval: str
    score: float | None
    model_digest: str
    champion: bool
    created_at: float
    synced: str = PENDING
    """The approval that both registries last agreed on."""
    rollout: str = ""
    """How its last rollout ended."""
    checks: str = ""
    """``passed``, or which pre-checks failed at registration."""
    card: str = ""
    """Where its model card lies."""

    @property
    def model_version(self) -> str:
        """NAME/NUMBER: what people and rollouts call it."""
        return f"{self.name}/{self.version}"


class MlflowRegistry:
    """Reads and writes the registry at ``MLFLOW_TRACKING_URI``."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()

    def register(self, package: Package) -> str:
        """Make a package's version, or return the one that carries its name: a retried step makes
        no second.
        """
        from mlflow.exceptions import MlflowException

        name, model_id = package.group, package.metadata.get(MLFLOW_MODEL, "")
        existing = self.of_package(name, package.arn)
        if existing is not None:
            return existing.version
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # The approval as it is now, and not agreed on: whoever approved before there was a version
        # is heard by the next reconciliation.
        tags = {
            PACKAGE_TAG: package.arn,
            **origin(package),
            APPROVAL_TAG: package.approval,
            SYNCED_TAG: PENDING,
        }
        made = self._client.create_model_version(
            name,
            f"models:/{model_id}",
            package.metadata.get(MLFLOW_RUN, ""),
            tags=tags,
            model_id=model_id,
        )
        return str(made.version)

    def versions(self, name: str = "") -> list[Version]:
        """All versions, newest first; of one model or of all."""
        query = f"name = '{name}'" if name else ""
        found = list(self._client.search_model_versions(query))
        champions = {
            model.name: (model.aliases or {}).get(CHAMPION)
            for model in self._client.search_registered_models()
        }
        return sorted(
            (self._version(item, champions) for item in found),
            key=lambda v: (v.created_at, int(v.version)),
            reverse=True,
        )

    def get(self, name: str, version: str) -> Version | None:
        """One version, without listing the others: each step of a rollout asks. None when it was
        deleted.
        """
        from mlflow.exceptions import MlflowException

        try:
            item = self._client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return self._version(
            item, {name: (self._client.get_registered_model(name).aliases or {}).get(CHAMPION)}
        )

    def of_package(self, name: str, arn: str) -> Version | None:
        """The version of a model that carries a package's name; the first, where there are two."""
        return next(
            (
                version
                for version in reversed(self.versions(name))
                if version.model_package_arn == arn
            ),
            None,
        )

    def champion(self, name: str) -> Version | None:
        """The version that carries the alias ``champion``."""
        return next((version for version in self.versions(name) if version.champion), None)

    def audit_heads(self) -> list[str]:
        """Hashes of audit entries that versions remember."""
        found = [
            (item.tags or {}).get(AUDIT_TAG, "") for item in self._client.search_model_versions("")
        ]
        return sorted({head for head in found if head})

    def set_champion(self, name: str, version: str) -> None:
        """Move the alias: one call, so there is always at most one champion."""
        self._client.set_registered_model_alias(name, CHAMPION, version)

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""
        self._client.delete_registered_model_alias(name, CHAMPION)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)

    def log_files(self, mlflow_run_id: str, files: Mapping[str, bytes], folder: str) -> None:
        """Artifacts of a run, written over when they are there."""
        with tempfile.TemporaryDirectory() as place:
            for name, data in files.items():
                (Path(place) / name).write_bytes(data)
                self._client.log_artifact(mlflow_run_id, str(Path(place) / name), folder)

    def _version(self, item: Any, champions: Mapping[str, str | None]) -> Version:
        tags = item.tags or {}
        return Version(
            name=item.name,
            version=str(item.version),
            run=tags.get(RUN_TAG, ""),
            mlflow_run_id=item.run_id or "",
            model_package_arn=tags.get(OWN_PACKAGE_TAG) or tags.get(PACKAGE_TAG, ""),
            approval=tags.get(APPROVAL_TAG, PENDING),
            score=_number(tags.get(SCORE_TAG, "")),
            model_digest=tags.get(DIGEST_TAG, ""),
            champion=str(champions.get(item.name) or "") == str(item.version),
            created_at=item.creation_timestamp / 1000,
            synced=tags.get(SYNCED_TAG, PENDING),
            rollout=tags.get(ROLLOUT_TAG, ""),
            checks=tags.get(CHECKS_TAG, ""),
            card=tags.get(CARD_TAG, ""),
        )


def origin(package: Package) -> dict[str, str]:
    """The tags by which a version says where it comes from."""
    return {
        OWN_PACKAGE_TAG: package.arn,
        **{tag: package.metadata[tag] for tag in ORIGIN if tag in package.metadata},
    }


def says_origin(version: Version, package: Package) -> bool:
    """Whether a version's tags are as its package has them: anybody may write into tags."""
    said = origin(package)
    score = _number(said[SCORE_TAG]) if SCORE_TAG in said else version.score
    wanted = (
        package.arn,
        said.get(RUN_TAG, version.run),
        said.get(DIGEST_TAG, version.model_digest),
        score,
    )
    return wanted == (version.model_package_arn, version.run, version.model_digest, version.score)


def _number(text: str) -> float | None:
    """None for what is no number: people may write into tags."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
