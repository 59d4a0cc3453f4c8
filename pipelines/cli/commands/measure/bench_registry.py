"""Measures of the registry bridge: from an approval to the canary devices, and a reconciliation of
many versions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.cli.commands.measure.measure import Measure
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import await_devices, running_fleet
from pipelines.local.home import Home

DEVICES = 20
VERSIONS = 1000
DRIFTED = 100
GIVE_UP_SECONDS = 120.0


def rollout_measures(home: Path, app: Path) -> list[Measure]:
    """A model of 20 devices is approved while they stand: until the canary has switched, and until
    all have.
    """
    options = ["--devices", str(DEVICES), "--rounds", "1", "--devices-per-proxy", "0", "--json"]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(app), *options]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "MLEDGEOPS_HOME": str(home)}, check=False
    )
    report = json.loads(done.stdout or b"{}")
    if report.get("status") != "Succeeded":
        raise UsageError(
            f"The run to approve did not succeed: {report.get('reason', 'no reason')}."
        )
    with LocalCloud.start(Home(home)) as cloud, cloud.reached():
        from fl_runtime.run.aws import client
        from pipelines.desk.registry import open_registry
        from registry.approval import decide, find

        registry = open_registry()
        version = find(registry.mlflow.versions(), report["model_version"])
        fleet, began = registry.candidates.of(version).fleet, time.time()
        with running_fleet(cloud, fleet, DEVICES, None, client("iot")):
            await_devices(cloud, fleet, DEVICES, client("dynamodb"), began)
            approved = time.monotonic()
            decide(
                registry.mlflow, registry.sagemaker, registry.audit, version, "Approved", "bench"
            )
            seconds = _until_switched(registry, fleet, approved)
    return [
        Measure(
            name=f"approval to canary switched, {DEVICES} devices",
            value=seconds[0],
            unit="s",
            target=10.0,
        ),
        Measure(name=f"approval to all switched, {DEVICES} devices", value=seconds[1], unit="s"),
    ]


def _until_switched(registry: Any, fleet: str, began: float) -> tuple[float, float]:
    canary = 0.0
    while time.monotonic() - began < GIVE_UP_SECONDS:
        current = registry.store.current(fleet)
        rollout = registry.store.get(fleet, current.number) if current.number else None
        if (
            rollout is not None
            and rollout.waves
            and not canary
            and rollout.switched >= len(rollout.waves[0].devices)
        ):
            canary = time.monotonic() - began
        if rollout is not None and rollout.state == "Succeeded":
            return canary, time.monotonic() - began
        time.sleep(0.1)
    raise UsageError(f"The rollout had not ended after {GIVE_UP_SECONDS:.0f} s.")


def reconcile_measures(home: Path) -> list[Measure]:
    """1,000 versions in both registries, of which 100 have drifted: plan, repair, and a plan that
    finds nothing.
    """
    with LocalCloud.start(Home(home)) as cloud, cloud.reached():
        from mlflow import MlflowClient

        from pipelines.desk.registry import open_registry
        from registry.model_version import APPROVAL_TAG
        from registry.reconcile.plan import plan
        from registry.reconcile.repair import repair

        registry = open_registry()
        sagemaker, mlflow = registry.sagemaker._client, MlflowClient()
        _fill(sagemaker, mlflow)
        for number in range(1, DRIFTED + 1):
            mlflow.set_model_version_tag("bench", str(number), APPROVAL_TAG, "nonsense")
        calls = [0]
        sagemaker.meta.events.register(
            "before-send.sagemaker", lambda **_: calls.__setitem__(0, calls[0] + 1)
        )
        registry.mlflow._client = _Counted(registry.mlflow._client, calls)
        began = time.monotonic()
        snapshot, actions = registry.reconciliation()
        repairs = plan(snapshot)
        repair(actions, snapshot, repairs)
        seconds = time.monotonic() - began
        left = plan(registry.reconciliation()[0])
    if len(repairs) != DRIFTED or left:
        raise UsageError(
            f"The reconciliation found {len(repairs)} of {DRIFTED} versions that had drifted, and left {len(left)}."
        )
    return [
        Measure(
            name=f"reconcile {VERSIONS} versions, {DRIFTED} drifted",
            value=seconds,
            unit="s",
            target=30.0,
        ),
        Measure(
            name="calls a version, reconcile and second look",
            value=calls[0] / VERSIONS,
            unit="",
            target=3.0,
        ),
    ]


def _fill(sagemaker: Any, mlflow: Any) -> None:
    from registry.model_version import (
        APPROVAL_TAG,
        CHECKS_TAG,
        MLFLOW_NAME,
        MLFLOW_VERSION,
        OWN_PACKAGE_TAG,
        PACKAGE_TAG,
        PENDING,
        RUN_TAG,
        SYNCED_TAG,
    )

    sagemaker.create_model_package_group(ModelPackageGroupName="bench")
    mlflow.create_registered_model("bench")
    for number in range(1, VERSIONS + 1):
        arn = sagemaker.create_model_package(
            ModelPackageGroupName="bench",
            ModelApprovalStatus=PENDING,
            CustomerMetadataProperties={
                RUN_TAG: f"run-{number}",
                MLFLOW_NAME: "bench",
                MLFLOW_VERSION: str(number),
            },
        )["ModelPackageArn"]
        tags = {
            RUN_TAG: f"run-{number}",
            PACKAGE_TAG: arn,
            OWN_PACKAGE_TAG: arn,
            APPROVAL_TAG: PENDING,
            SYNCED_TAG: PENDING,
            CHECKS_TAG: "passed",
        }
        mlflow.create_model_version("bench", f"s3://bench/{number}", tags=tags)


class _Counted:
    """An MLflow client whose calls are counted."""

    def __init__(self, client: Any, calls: list[int]) -> None:
        self._client = client
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._calls[0] += 1
            return found(*arguments, **named)

        return call
