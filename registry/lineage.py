"""From any name in a run's life to all the others: what ``mledgeops trace`` shows. Reads MLflow only."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from registry.mlflow_registry import MlflowRegistry, Version
from registry.sagemaker_registry import RegistryError

_TAGS = ("mledgeops.run_id", "mledgeops.pipeline_execution_arn", "mledgeops.execution_arn")


class Lineage:
    """Looks names up in MLflow and lays the chain out."""

    def __init__(self, client: Any, registry: MlflowRegistry) -> None:
        self._client = client
        self._registry = registry

    def trace(self, name: str) -> dict[str, Any]:
        """The chain of a run, pipeline execution, state machine execution, MLflow run, version, package, digest or device.

        A device leads to the newest run it took part in. Raises RegistryError for a name that leads nowhere.
        """
        version = next((v for v in self._registry.versions() if name in _names_of(v)), None)
        run = self._find(version.mlflow_run_id if version else name)
        if run is None:
            raise RegistryError(f"{name!r} is the name of nothing here: give a run, an ARN, a version as NAME/NUMBER, a digest or a device.")
        return self._chain(run)

    def _find(self, name: str) -> Any | None:
        runs = self._runs()
        for run in runs:
            if name == run.info.run_id or name in (run.data.tags.get(tag) for tag in _TAGS):
                return run
        # Devices and update digests are in each run's device table: newest first.
        return next((run for run in runs if any(name in (row["device"], row["digest"]) for row in self._rows(run))), None)

    def _runs(self) -> list[Any]:
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        return list(self._client.search_runs(experiments, "tags.`mledgeops.run_id` != ''", order_by=["attributes.start_time DESC"]))

    def _rows(self, run: Any) -> list[dict[str, Any]]:
        if not any(item.path == "devices.json" for item in self._client.list_artifacts(run.info.run_id)):
            return []
        with tempfile.TemporaryDirectory() as folder:
            table = json.loads(Path(self._client.download_artifacts(run.info.run_id, "devices.json", folder)).read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    def _chain(self, run: Any) -> dict[str, Any]:
        tags = run.data.tags
        rounds: dict[int, list[dict[str, Any]]] = {}
        for row in self._rows(run):
            entry = {key: row[key] for key in ("device", "phase", "status", "code", "digest")}
            rounds.setdefault(row["round"], []).append(entry)
        versions = [v for v in self._registry.versions() if v.mlflow_run_id == run.info.run_id]
        return {
            "pipeline_execution_arn": tags.get("mledgeops.pipeline_execution_arn", ""), "execution_arn": tags.get("mledgeops.execution_arn", ""),
            "run_id": tags["mledgeops.run_id"], "status": tags.get("mledgeops.status", "Running"), "app": tags.get("mledgeops.app", ""),
            "app_digest": tags.get("mledgeops.app_digest", ""), "fleet": tags.get("mledgeops.fleet", ""), "mlflow_run_id": run.info.run_id,
            "rounds": [{"round": number, "updates": rounds[number]} for number in sorted(rounds)],
            "versions": [_version(version) for version in versions],
        }  # fmt: skip


def _names_of(version: Version) -> tuple[str, ...]:
    return (f"{version.name}/{version.version}", version.model_package_arn, version.model_digest)


def _version(version: Version) -> dict[str, Any]:
    return {
        "model_version": f"{version.name}/{version.version}", "model_package_arn": version.model_package_arn, "model_digest": version.model_digest,
        "approval": version.approval, "champion": version.champion,
    }  # fmt: skip
