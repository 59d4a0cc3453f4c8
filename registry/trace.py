"""From any name in a model's life to all the others: what ``mledgeops trace`` shows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fl_runtime.run.mlflow_runs import EXECUTION_TAG, PIPELINE_TAG, RUN_ID_TAG, STATUS_TAG
from registry.audit import AuditEntry
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.model_version import Version
from registry.rollout.model import Rollout, Wave

_NAMES_OF_RUN = (RUN_ID_TAG, PIPELINE_TAG, EXECUTION_TAG)
"""Tags of an MLflow run by which it is found."""
_DEVICES = "devices.json"
"""Artifact of an MLflow run: a table of device phases."""


class Tracer:
    """Finds a name in MLflow, among the rollouts or in the audit trail, and describes the chain
    that it belongs to.
    """

    def __init__(
        self,
        mlflow: Any,
        registry: MlflowRegistry,
        rollouts: Sequence[Rollout] = (),
        entries: Sequence[AuditEntry] = (),
    ) -> None:
        """``mlflow``: an MlflowClient; ``rollouts``: newest first; ``entries``: the audit trail."""
        self._client = mlflow
        self._registry = registry
        self._rollouts = rollouts
        self._entries = entries

    def trace(self, name: str) -> dict[str, Any]:
        """The chain of a pipeline execution, a state machine execution, a run, a round
        (RUN/NUMBER), an MLflow run, a version, a package, a digest, a rollout (FLEET-NUMBER), a job
        or a device.

        A device leads to the newest run that it took part in, else to the newest rollout that
        reached it. Raises RegistryError for an unknown name.
        """
        versions = self._registry.versions()
        wanted = self._version_of_job(name) or name
        version = next((v for v in versions if wanted in _names_of_version(v)), None)
        run = self._find(version.mlflow_run_id if version else _run_of_round(name))
        if run is None:
            # A device that trained nothing may still run a model.
            reached = next((r.model_version for r in self._rollouts if name in r.asked), "")
            version = next((v for v in versions if reached and v.model_version == reached), None)
            run = self._find(version.mlflow_run_id) if version is not None else None
        if run is None:
            raise RegistryError(
                f"{name!r} is not known here: give a run, a round as RUN/NUMBER, an ARN, a version "
                "as NAME/NUMBER, a digest, a rollout as FLEET-NUMBER, a job or a device."
            )
        return self._chain(run, [v for v in versions if v.mlflow_run_id == run.info.run_id])

    def _version_of_job(self, name: str) -> str:
        """The version that a rollout or one of its jobs brings, or a stale device's job; else
        empty.
        """
        for rollout in self._rollouts:
            if name == rollout.name or name in rollout.jobs():
                return rollout.model_version
        return next((e.subject for e in self._entries if name in e.details.get("jobs", ())), "")

    def _find(self, name: str) -> Any | None:
        if not name:
            return None
        runs = self._runs()
        for run in runs:
            if name == run.info.run_id or name in (run.data.tags.get(tag) for tag in _NAMES_OF_RUN):
                return run
        # Devices and digests of updates are in each run's table of devices only.
        return next(
            (
                run
                for run in runs
                if any(name in (row["device"], row["digest"]) for row in self._device_phases(run))
            ),
            None,
        )

    def _runs(self) -> list[Any]:
        """Newest first."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        query = f"tags.`{RUN_ID_TAG}` != ''"
        return list(
            self._client.search_runs(experiments, query, order_by=["attributes.start_time DESC"])
        )

    def _device_phases(self, run: Any) -> list[dict[str, Any]]:
        run_id = run.info.run_id
        if not any(item.path == _DEVICES for item in self._client.list_artifacts(run_id)):
            return []
        with tempfile.TemporaryDirectory() as folder:
            file = self._client.download_artifacts(run_id, _DEVICES, folder)
            table = json.loads(Path(file).read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    def _chain(self, run: Any, versions: Sequence[Version]) -> dict[str, Any]:
        tags = run.data.tags
        rounds: dict[int, list[dict[str, Any]]] = {}
        for row in self._device_phases(run):
            update = {key: row[key] for key in ("device", "phase", "status", "code", "digest")}
            rounds.setdefault(row["round"], []).append(update)
        return {
            "pipeline_execution_arn": tags.get(PIPELINE_TAG, ""),
            "execution_arn": tags.get(EXECUTION_TAG, ""),
            "run_id": tags[RUN_ID_TAG],
            "status": tags.get(STATUS_TAG, "Running"),
            "app": tags.get("mledgeops.app", ""),
            "app_digest": tags.get("mledgeops.app_digest", ""),
            "fleet": tags.get("mledgeops.fleet", ""),
            "mlflow_run_id": run.info.run_id,
            "rounds": [{"round": number, "updates": rounds[number]} for number in sorted(rounds)],
            "versions": [self._version(version) for version in versions],
        }

    def _version(self, version: Version) -> dict[str, Any]:
        name = version.model_version
        return {
            "model_version": name,
            "model_package_arn": version.model_package_arn,
            "model_digest": version.model_digest,
            "approval": version.approval,
            "champion": version.champion,
            "checks": version.checks,
            "model_card": version.card,
            "decisions": [
                {"at": entry.at, "who": entry.who, "what": entry.what, "why": entry.why}
                for entry in self._entries
                if entry.subject in (name, version.model_package_arn)
            ],
            "rollouts": [
                _rollout(rollout)
                for rollout in reversed(self._rollouts)
                if rollout.model_version == name
            ],
        }


def _names_of_version(version: Version) -> tuple[str, ...]:
    return (version.model_version, version.model_package_arn, version.model_digest)


def _run_of_round(name: str) -> str:
    run, slash, number = name.rpartition("/")
    return run if slash and number.isdigit() else name


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": rollout.name,
        "state": rollout.state,
        "by": rollout.by,
        "reason": rollout.reason,
        "why": rollout.why,
        "waves": [_wave(wave) for wave in rollout.waves],
        "back": _wave(rollout.back) if rollout.back is not None else None,
        "switched": rollout.switched,
        "failures": rollout.failures,
    }


def _wave(wave: Wave) -> dict[str, Any]:
    return {"jobs": wave.jobs, "devices": wave.devices}
