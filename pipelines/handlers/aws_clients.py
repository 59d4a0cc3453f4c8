"""Makes the clients of the Lambda functions, at the first call of a process and never at import.

Lambda keeps a process for many calls, so what is made once stays.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge import logs
from fl_runtime.run.aws import S3Objects, client, fresh_seconds, names_from_environment, setting
from fl_runtime.run.blocking import BlockList
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.mlflow_runs import ARTIFACT_ROOT_VARIABLE, mlflow_client
from fl_runtime.run.state import RunTable
from registry.link_function import LinkFunction

if TYPE_CHECKING:
    from registry.rollout.aws import DynamoStore
    from registry.wiring import Registry


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the functions that start and conclude runs work with."""

    objects: S3Objects
    runs: RunTable
    devices: DeviceTable
    rollouts: DynamoStore
    sagemaker: Any
    steps: Any
    link: LinkFunction
    state_machine: str
    """ARN of the state machine of a run."""
    mlflow: Callable[[], Any]
    """Makes an MlflowClient. Importing MLflow takes seconds, so it is made when it is needed."""
    artifact_root: str | None
    """Where new MLflow experiments keep their artifacts; None: MLflow's default."""
    fresh_seconds: float
    """How long a device counts as online after its last heartbeat."""


@functools.cache
def set_up_logs() -> None:
    """Log JSON lines, which the metric filters read."""
    logs.set_up()


@functools.cache
def services() -> Services:
    """The services of this function's environment."""
    set_up_logs()
    from registry.rollout.aws import DynamoStore  # it takes numpy, which the IoT hook does without

    machine = setting("MLEDGEOPS_STATE_MACHINE")
    names, dynamodb = names_from_environment(), client("dynamodb")
    return Services(
        objects=S3Objects(client("s3"), names.bucket),
        runs=RunTable(dynamodb, names.runs_table),
        devices=DeviceTable(dynamodb, names.devices_table),
        rollouts=DynamoStore(dynamodb, setting("MLEDGEOPS_ROLLOUTS_TABLE")),
        sagemaker=client("sagemaker"),
        steps=client("stepfunctions"),
        link=LinkFunction(client("lambda"), f"{prefix_of(machine)}-link"),
        state_machine=machine,
        mlflow=mlflow_client,
        artifact_root=os.environ.get(ARTIFACT_ROOT_VARIABLE),
        fresh_seconds=fresh_seconds(),
    )


def prefix_of(state_machine: str) -> str:
    """The deployment's prefix, from the ARN of the state machine of its runs."""
    return state_machine.rsplit(":", 1)[1].removesuffix("-run")


@functools.cache
def iot() -> Any:
    """The IoT client alone: AWS IoT gives its hook five seconds, cold start included."""
    set_up_logs()
    return client("iot")


@functools.cache
def block_list() -> BlockList:
    """The devices that are shut out."""
    set_up_logs()
    return BlockList(client("dynamodb"), setting("MLEDGEOPS_DEVICES_TABLE"))


def registry() -> Registry:
    """Both registries and their rollouts. Made anew at each call: they cache what they read."""
    set_up_logs()
    # Linking draws charts, which takes Jinja: functions that do not link start without it.
    from registry.wiring import Registry, make_clients, resources_from_environment

    return Registry(make_clients(client, mlflow_client), resources_from_environment())
