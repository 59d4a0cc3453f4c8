"""Which fleets are wanted at the moment: those of runs and of rollouts under way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime.run.aws import S3Objects
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import spec_key
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import RunTable
from pipelines.deployment import Deployment
from pipelines.local.home import Home
from pipelines.local.sagemaker.executions import UNDER_WAY
from registry.rollout.aws import DynamoStore

ASKED_SECONDS = 60.0
"""How long devices stay wanted after somebody has asked for them (:func:`ask_for`)."""


def ask_for(home: Home, fleet: str) -> None:
    """Ask a cloud that hosts devices for those that a fleet has, because a rollout will begin."""
    home.wanted.mkdir(parents=True, exist_ok=True)
    (home.wanted / fleet).touch()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Devices that are to be there."""

    devices: int
    """0: those that are enrolled."""
    app: str = ""
    """Digest of the app that they are to have. Empty: the apps that they have."""


class ExecutionWatch:
    """The pipeline executions under way, by their files. It reads those that have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, str]] = {}

    def under_way(self) -> set[str]:
        """Their ARNs."""
        found = {}
        for file in self._folder.glob("*.json"):
            changed = file.stat().st_mtime_ns
            known = self._read.get(file)
            found[file] = (
                known if known is not None and known[0] == changed else _look(file, changed)
            )
        self._read = found
        return {arn for _, arn in found.values() if arn}


def _look(file: Path, changed: int) -> tuple[int, str]:
    """When a file changed, and its execution's ARN if that is under way."""
    described = json.loads(file.read_text())
    return changed, described["arn"] if described["status"] in UNDER_WAY else ""


class Wishes:
    """Reads them from the tables of the cloud, whoever started the runs and rollouts."""

    def __init__(self, home: Home, deployment: Deployment, client: Callable[[str], Any]) -> None:
        self._home = home
        self._executions = ExecutionWatch(home.executions)
        self._objects = S3Objects(client("s3"), deployment.bucket)
        self._runs = RunTable(client("dynamodb"), deployment.runs_table)
        self._rollouts = DynamoStore(client("dynamodb"), deployment.rollouts_table)
        self._specs: dict[str, RunSpec] = {}

    def executions(self) -> set[str]:
        """ARNs of the pipeline executions under way."""
        return self._executions.under_way()

    def runs(self) -> list[RunSpec]:
        """The runs under way, oldest first."""
        going = self._executions.under_way()
        # A run that its cloud has left behind has a pipeline that is no longer under way.
        names = [
            state.run
            for state in (self._runs.under_way() if going else [])
            if state.pipeline_execution_arn in going
        ]
        self._specs = {run: spec for run in names if (spec := self._spec(run)) is not None}
        return sorted(self._specs.values(), key=lambda spec: spec.created_at)

    def fleets(self) -> dict[str, Wish]:
        """What is wanted of each fleet. Of two runs on one fleet the older one's is."""
        found = {
            record.fleet: Wish(devices=0)
            for record in self._rollouts.fleets()
            if record.under_way or record.next
        }
        for file in self._home.wanted.glob("*"):
            if time.time() - file.stat().st_mtime < ASKED_SECONDS:
                found[file.name] = Wish(devices=0)
        for spec in reversed(self.runs()):
            found[spec.fleet] = Wish(devices=spec.max_devices or spec.min_devices, app=spec.app)
        return found

    def _spec(self, run: str) -> RunSpec | None:
        try:
            return self._specs.get(run) or decode_spec(self._objects.get(spec_key(run)))
        except (ObjectMissing, RunFailed):
            return None
