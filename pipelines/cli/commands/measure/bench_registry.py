"""Measures of the registry: from an approval to the devices, and reconciling many versions."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fl_runtime.run.aws import client
from fl_runtime.run.mlflow_runs import mlflow_client
from pipelines.cli.commands.measure.bench_run import run_command, succeeded
from pipelines.cli.commands.measure.measure import Measure
from pipelines.desk import wiring
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import await_devices, running_fleet
from pipelines.local.home import VARIABLE, Home
from registry.approval import decide, find
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
from registry.reconcile.plan import plan
from registry.reconcile.repair import repair
from registry.wiring import Registry, make_clients, resources_from_environment

DEVICES = 20
VERSIONS = 1000
DRIFTED = 100
GROUP = "bench"
GIVE_UP_SECONDS = 120.0


def rollout_measures(home: Path, app: Path) -> list[Measure]:
    """Approve a model while 20 devices run: until the canary has switched, and until all have."""
    command = run_command(app, "--devices-per-proxy", "0", devices=DEVICES, rounds=1)
    environment = {**os.environ, VARIABLE: str(home)}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    report = succeeded(done.stdout)
    with LocalCloud.start(Home(home)) as cloud, cloud.reached():
        clients, registry = wiring.fleet_clients(), wiring.registry()
        version = find(registry.mlflow.versions(), report["model_version"])
        fleet, began = registry.candidates.of(version).fleet, time.time()
        with running_fleet(cloud, clients, fleet, DEVICES, None):
            await_devices(cloud, fleet, DEVICES, clients.dynamodb, began)
            approved = time.monotonic()
            decide(
                registry.mlflow,
                registry.sagemaker,
                registry.audit,
                version,
                "Approved",
                "bench",
                who=registry.caller(),
            )
            canary, everyone = _until_switched(registry, fleet, approved)
    name = f"switched, {DEVICES} devices"
    return [
        Measure(name=f"approval to canary {name}", value=canary, unit="s", target=10.0),
        Measure(name=f"approval to all {name}", value=everyone, unit="s"),
    ]


def _until_switched(registry: Registry, fleet: str, began: float) -> tuple[float, float]:
    """Seconds until the canary devices have switched, and until all have."""
    canary = 0.0
    while time.monotonic() - began < GIVE_UP_SECONDS:
        current = registry.store.current(fleet)
        rollout = registry.store.get(fleet, current.number) if current.number else None
        if rollout is None or not rollout.waves:
            time.sleep(0.1)
            continue
        if not canary and rollout.switched >= len(rollout.waves[0].devices):
            canary = time.monotonic() - began
        if rollout.state == "Succeeded":
            return canary, time.monotonic() - began
        time.sleep(0.1)
    raise UsageError(f"The rollout had not ended after {GIVE_UP_SECONDS:.0f} s.")


def reconcile_measures(home: Path) -> list[Measure]:
    """Plan and repair 1,000 versions of which 100 have drifted; a second plan is empty."""
    with LocalCloud.start(Home(home)) as cloud, cloud.reached():
        sagemaker, mlflow, calls = client("sagemaker"), mlflow_client(), [0]
        _fill(sagemaker, mlflow)
        for number in range(1, DRIFTED + 1):
            mlflow.set_model_version_tag(GROUP, str(number), APPROVAL_TAG, "nonsense")
        registry = _counting_registry(sagemaker, mlflow, calls)
        began = time.monotonic()
        snapshot, actions = registry.reconciliation()
        repairs = plan(snapshot)
        repair(actions, snapshot, repairs)
        seconds = time.monotonic() - began
        left = plan(registry.reconciliation()[0])
    if len(repairs) != DRIFTED or left:
        raise UsageError(
            f"The reconciliation found {len(repairs)} of {DRIFTED} versions that had drifted, "
            f"and left {len(left)}."
        )
    name = f"reconcile {VERSIONS} versions, {DRIFTED} drifted"
    per_version = "calls a version, reconcile and second look"
    return [
        Measure(name=name, value=seconds, unit="s", target=30.0),
        Measure(name=per_version, value=calls[0] / VERSIONS, unit="", target=3.0),
    ]


def _counting_registry(sagemaker: Any, mlflow: Any, calls: list[int]) -> Registry:
    """A registry whose SageMaker and MLflow calls are counted in ``calls[0]``."""

    def count(**_: Any) -> None:
        calls[0] += 1

    sagemaker.meta.events.register("before-send.sagemaker", count)
    counted = CountedClient(mlflow, calls)
    clients = make_clients(client, lambda: counted)
    return Registry(replace(clients, sagemaker=sagemaker), resources_from_environment())


def _fill(sagemaker: Any, mlflow: Any) -> None:
    """Register versions in both registries, linked and waiting for approval."""
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
    mlflow.create_registered_model(GROUP)
    for number in range(1, VERSIONS + 1):
        run = f"run-{number}"
        arn = sagemaker.create_model_package(
            ModelPackageGroupName=GROUP,
            ModelApprovalStatus=PENDING,
            CustomerMetadataProperties={
                RUN_TAG: run,
                MLFLOW_NAME: GROUP,
                MLFLOW_VERSION: str(number),
            },
        )["ModelPackageArn"]
        tags = {
            RUN_TAG: run,
            PACKAGE_TAG: arn,
            OWN_PACKAGE_TAG: arn,
            APPROVAL_TAG: PENDING,
            SYNCED_TAG: PENDING,
            CHECKS_TAG: "passed",
        }
        mlflow.create_model_version(GROUP, f"s3://bench/{number}", tags=tags)


class CountedClient:
    """A client whose method calls are counted."""

    def __init__(self, client: Any, calls: list[int]) -> None:
        self._client = client
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._calls[0] += 1
            return found(*arguments, **named)

        return call
