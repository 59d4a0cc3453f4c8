"""From any name in a model's life to the same chain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.evidence import package
from fakes.registries import MemoryModels
from fakes.rollout_drive import Drive
from fakes.rollouts import Plant

from registry.audit import AuditEntry
from registry.errors import RegistryError
from registry.mlflow_registry import MlflowRegistry
from registry.rollout.model import Rollout, Wave
from registry.trace import Tracer

PHASES = {
    "columns": ["round", "device", "phase", "status", "code", "digest"],
    "data": [[1, "d0", "train-1", "ok", "", "e" * 64], [1, "d1", "train-1", "error", "claim", ""]],
}


class Runs:
    """One MLflow run with its table of device phases."""

    def __init__(self) -> None:
        tags = {
            "mledgeops.run_id": "run-1",
            "mledgeops.pipeline_execution_arn": "arn:pipeline",
            "mledgeops.execution_arn": "arn:machine",
            "mledgeops.status": "Succeeded",
        }
        info = SimpleNamespace(run_id="m" * 32)
        self.run = SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))

    def search_experiments(self) -> list[Any]:
        return [SimpleNamespace(experiment_id="0")]

    def search_runs(self, experiments: list[str], query: str, order_by: list[str]) -> list[Any]:
        return [self.run]

    def list_artifacts(self, run_id: str) -> list[Any]:
        return [SimpleNamespace(path="devices.json")]

    def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
        file = Path(folder) / path
        file.write_text(json.dumps(PHASES))
        return str(file)


def rollout() -> Rollout:
    """As release 0.4 stored it: its job ids hold the fleet's name."""
    begun = Drive(Plant(1)).begin(1)
    wave = Wave(devices=["d0", "late"], jobs=["mledgeops-f-1-w0-0"], started_at=0.0)
    back = Wave(devices=["d0"], jobs=["mledgeops-f-1-back-0"], started_at=0.0)
    return msgspec.structs.replace(begun, model_version="x/1", waves=[wave], back=back)


def entry(what: str, **details: Any) -> AuditEntry:
    return AuditEntry(
        number=1, at=2.0, who="ann", what=what, subject="x/1", why="w", before="", details=details
    )


def tracer() -> Tracer:
    registry = MlflowRegistry(MemoryModels())
    registry.register(package())
    entries = [entry("approve"), entry("catch-up", jobs=["mledgeops-1-device-0123456789abcdef"])]
    return Tracer(Runs(), registry, [rollout()], entries)


@pytest.mark.parametrize(
    "name",
    [
        "run-1",
        "run-1/1",
        "arn:pipeline",
        "arn:machine",
        "m" * 32,
        "x/1",
        "arn:package",
        "d" * 64,
        "e" * 64,
        "f-1",
        "mledgeops-f-1-w0-0",
        "mledgeops-f-1-back-0",
        "mledgeops-1-device-0123456789abcdef",
        "d1",
        "late",
    ],
)
def test_every_name_leads_to_the_chain(name: str) -> None:
    chain = tracer().trace(name)
    assert (chain["run_id"], chain["execution_arn"]) == ("run-1", "arn:machine")
    (version,) = chain["versions"]
    assert version["model_version"] == "x/1"
    assert [decision["what"] for decision in version["decisions"]] == ["approve", "catch-up"]
    (shown,) = version["rollouts"]
    assert shown["waves"] == [{"jobs": ["mledgeops-f-1-w0-0"], "devices": ["d0", "late"]}]
    assert [update["device"] for update in chain["rounds"][0]["updates"]] == ["d0", "d1"]


@pytest.mark.parametrize("name", ["", "nobody", "x/9"])
def test_a_name_that_leads_nowhere_is_refused(name: str) -> None:
    with pytest.raises(RegistryError, match="is not known here"):
        tracer().trace(name)
