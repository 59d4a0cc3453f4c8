"""From any name in a model's life to all the others: what ``mledgeops trace`` shows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.audit import Entry
from registry.mlflow_registry import MlflowRegistry, Version
from registry.rollout.conductor import Rollout
from registry.sagemaker_registry import RegistryError

_TAGS = ("mledgeops.run_id", "mledgeops.pipeline_execution_arn", "mledgeops.execution_arn")


class Lineage:
    """Looks names up in MLflow and among the rollouts, and lays the chain out."""

    def __init__(
        self,
        client: Any,
        registry: MlflowRegistry,
        rollouts: Sequence[Rollout] = (),
        decisions: Sequence[Entry] = (),
    ) -> None:
        self._client = client
        self._registry = registry
        self._rollouts = rollouts
        self._decisions = decisions

    def trace(self, name: str) -> dict[str, Any]:
        """The chain of a pipeline execution, a state machine execution, a run, a round
        (RUN/NUMBER), an MLflow run, a version, a package,
        a digest, a rollout (FLEET-NUMBER), a job or a device.

        A device leads to the newest run it took part in, else to the newest rollout that reached
        it. Raises RegistryError for a name that
        leads nowhere.
        """
        versions = self._registry.versions()
        rollout = next((r for r in self._rollouts if name in _names_of_rollout(r)), None)
        wanted = rollout.model_version if rollout is not None else name
        version = next((v for v in versions if wanted in _names_of(v)), None)
        run = (
            self._find(version.mlflow_run_id if version else _run_of_round(name)) if name else None
        )
        if run is None:  # a device that trained nothing, and runs a model all the same
            reached = next(
                (r for r in self._rollouts if any(name in wave.devices for wave in r.waves)), None
            )
            version = next(
                (
                    v
                    for v in versions
                    if reached is not None and v.model_version == reached.model_version
                ),
                None,
            )
            run = self._find(version.mlflow_run_id) if version is not None else None
        if run is None:
            raise RegistryError(
                f"{name!r} is the name of nothing here: give a run, a round as RUN/NUMBER, an ARN, a version as NAME/NUMBER, a digest, a rollout as "
                "FLEET-NUMBER, a job or a device."
            )
        return self._chain(
            run, [version for version in versions if version.mlflow_run_id == run.info.run_id]
        )

    def _find(self, name: str) -> Any | None:
        runs = self._runs()
        for run in runs:
            if name == run.info.run_id or name in (run.data.tags.get(tag) for tag in _TAGS):
                return run
        # Devices and update digests are in each run's device table: newest first.
        return next(
            (
                run
                for run in runs
                if any(name in (row["device"], row["digest"]) for row in self._rows(run))
            ),
            None,
        )

    def _runs(self) -> list[Any]:
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        return list(
            self._client.search_runs(
                experiments,
                "tags.`mledgeops.run_id` != ''",
                order_by=["attributes.start_time DESC"],
            )
        )

    def _rows(self, run: Any) -> list[dict[str, Any]]:
        if not any(
            item.path == "devices.json" for item in self._client.list_artifacts(run.info.run_id)
        ):
            return []
        with tempfile.TemporaryDirectory() as folder:
            table = json.loads(
                Path(
                    self._client.download_artifacts(run.info.run_id, "devices.json", folder)
                ).read_text()
            )
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    def _chain(self, run: Any, versions: Sequence[Version]) -> dict[str, Any]:
        tags = run.data.tags
        rounds: dict[int, list[dict[str, Any]]] = {}
        for row in self._rows(run):
            entry = {key: row[key] for key in ("device", "phase", "status", "code", "digest")}
            rounds.setdefault(row["round"], []).append(entry)
        return {
            "pipeline_execution_arn": tags.get("mledgeops.pipeline_execution_arn", ""),
            "execution_arn": tags.get("mledgeops.execution_arn", ""),
            "run_id": tags["mledgeops.run_id"],
            "status": tags.get("mledgeops.status", "Running"),
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
                for entry in self._decisions
                if entry.subject in (name, version.model_package_arn)
            ],
            "rollouts": [
                _rollout(rollout)
                for rollout in reversed(self._rollouts)
                if rollout.model_version == name
            ],
        }


def _names_of(version: Version) -> tuple[str, ...]:
    return (version.model_version, version.model_package_arn, version.model_digest)


def _names_of_rollout(rollout: Rollout) -> tuple[str, ...]:
    waves = [*rollout.waves, *([rollout.back] if rollout.back is not None else [])]
    return (f"{rollout.fleet}-{rollout.number}", *(job for wave in waves for job in wave.jobs))


def _run_of_round(name: str) -> str:
    run, slash, number = name.rpartition("/")
    return run if slash and number.isdigit() else name


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": f"{rollout.fleet}-{rollout.number}",
        "state": rollout.state,
        "by": rollout.by,
        "reason": rollout.reason,
        "why": rollout.why,
        "waves": [{"jobs": wave.jobs, "devices": wave.devices} for wave in rollout.waves],
        "back": {"jobs": rollout.back.jobs, "devices": rollout.back.devices}
        if rollout.back is not None
        else None,
        "switched": rollout.switched,
        "failures": rollout.failures,
    }
