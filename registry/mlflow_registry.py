"""MLflow's side: registered versions, their tags, the alias ``champion`` and artifacts of runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.model_version import (
    APPROVAL_TAG,
    AUDIT_TAG,
    CARD_TAG,
    CHAMPION,
    CHECKS_TAG,
    DIGEST_TAG,
    METRIC,
    MLFLOW_MODEL,
    MLFLOW_RUN,
    OWN_PACKAGE_TAG,
    PACKAGE_TAG,
    PENDING,
    ROLLOUT_TAG,
    RUN_TAG,
    SCORE_TAG,
    SYNCED_TAG,
    Package,
    Version,
    metric_value,
    origin_tags,
    parse_number,
    rollout_state,
)


class MlflowRegistry:
    """Registered model versions through an ``MlflowClient``."""

    def __init__(self, mlflow: Any) -> None:
        self._client = mlflow

    def register(self, package: Package) -> str:
        """Create the MLflow version of a package and return its number (idempotent)."""
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
        # SYNCED_TAG starts as pending whatever the package says now: an approval given before the
        # version existed then counts as a change, and the next reconciliation acts on it.
        tags = {
            PACKAGE_TAG: package.arn,
            **origin_tags(package),
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
        # Two calls at the same time make two versions: the older one counts for both.
        counts = self.of_package(name, package.arn)
        return counts.version if counts is not None else str(made.version)

    def versions(self, name: str = "") -> list[Version]:
        """All versions, newest first: of one model, or of all."""
        query = f"name = '{name}'" if name else ""
        found = list(self._client.search_model_versions(query))
        champions = {
            model.name: (model.aliases or {}).get(CHAMPION)
            for model in self._client.search_registered_models()
        }
        return sorted(
            (_version(item, champions.get(item.name)) for item in found),
            key=lambda v: (v.created_at, int(v.version)),
            reverse=True,
        )

    def get(self, name: str, version: str) -> Version | None:
        """One version, without listing the others; None when it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            item = self._client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return _version(item, (self._client.get_registered_model(name).aliases or {}).get(CHAMPION))

    def of_package(self, name: str, arn: str) -> Version | None:
        """The version of a model that names a package; the oldest where several do."""
        return next(
            (
                version
                for version in reversed(self.versions(name))
                if version.model_package_arn == arn
            ),
            None,
        )

    def champion(self, name: str) -> Version | None:
        """The version with the alias ``champion``."""
        return next((version for version in self.versions(name) if version.champion), None)

    def audit_heads(self) -> list[str]:
        """The hashes of audit entries that versions and models are tagged with."""
        items = (*self._client.search_model_versions(""), *self._client.search_registered_models())
        found = [(item.tags or {}).get(AUDIT_TAG, "") for item in items]
        return sorted({head for head in found if head})

    def remember_head(self, subject: str, head: str) -> None:
        """Store an audit entry's hash: on the version that it is about, else on every model.

        So an entry that names no version, such as one about the policy, is missed as well when it
        is cut off the trail.
        """
        model, _, number = subject.partition("/")
        if number.isdigit() and self.get(model, number) is not None:
            self.set_tags(model, number, {AUDIT_TAG: head})
            return
        for item in self._client.search_registered_models():
            self._client.set_registered_model_tag(item.name, AUDIT_TAG, head)

    def set_champion(self, name: str, version: str) -> None:
        """Move the alias in one call, so that there is never more than one champion."""
        self._client.set_registered_model_alias(name, CHAMPION, version)

    def drop_champion(self, name: str) -> None:
        """Remove the alias."""
        self._client.delete_registered_model_alias(name, CHAMPION)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version, in the order given, by one call each."""
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)


class RunArtifacts:
    """Files of MLflow runs through an ``MlflowClient``."""

    def __init__(self, mlflow: Any) -> None:
        self._client = mlflow

    def write(self, mlflow_run_id: str, folder: str, files: Mapping[str, bytes]) -> None:
        """Log files by name into a folder of a run's artifacts, overwriting what is there."""
        with tempfile.TemporaryDirectory() as place:
            for name, data in files.items():
                (Path(place) / name).write_bytes(data)
                self._client.log_artifact(mlflow_run_id, str(Path(place) / name), folder)


def _version(item: Any, champion: str | None) -> Version:
    """``item``: an MLflow ModelVersion; ``champion``: the number of its model's champion."""
    tags = item.tags or {}
    return Version(
        name=item.name,
        version=str(item.version),
        run=tags.get(RUN_TAG, ""),
        mlflow_run_id=item.run_id or "",
        model_package_arn=tags.get(OWN_PACKAGE_TAG) or tags.get(PACKAGE_TAG, ""),
        approval=tags.get(APPROVAL_TAG, PENDING),
        score=parse_number(tags.get(SCORE_TAG, "")),
        model_digest=tags.get(DIGEST_TAG, ""),
        champion=str(champion or "") == str(item.version),
        created_at=item.creation_timestamp / 1000,
        synced=tags.get(SYNCED_TAG, PENDING),
        rollout=tags.get(ROLLOUT_TAG, ""),
        rollout_state=rollout_state(tags),
        checks=tags.get(CHECKS_TAG, ""),
        card=tags.get(CARD_TAG, ""),
        metric=tags.get(METRIC, ""),
        value=metric_value(tags),
    )
