"""Clients for the handlers, made once a process at the first call, never at import."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

from edge import logs
from fl_runtime.run.aws import ResourceNames, S3Objects, client, names_from_environment
from fl_runtime.run.mlflow_runs import mlflow_client
from fl_runtime.run.state import RunTable
from registry.wiring import Registry, make_clients, resources_from_environment


@dataclass(frozen=True, kw_only=True)
class Services:
    """What handlers work with."""

    names: ResourceNames
    objects: S3Objects
    runs: RunTable
    dynamodb: Any
    sagemaker: Any
    steps: Any
    state_machine: str


@functools.cache
def set_up_logs() -> None:
    """Once a process: JSON lines, which the metric filters read."""
    logs.set_up()


@functools.cache
def services() -> Services:
    """The services of this function's environment."""
    set_up_logs()
    names, dynamodb = names_from_environment(), client("dynamodb")
    return Services(
        names=names,
        objects=S3Objects(client("s3"), names.bucket),
        runs=RunTable(dynamodb, names.runs_table),
        dynamodb=dynamodb,
        sagemaker=client("sagemaker"),
        steps=client("stepfunctions"),
        state_machine=os.environ["MLEDGEOPS_STATE_MACHINE"],
    )


def registry() -> Registry:
    """Both registries and their rollouts, for one invocation."""
    return Registry(make_clients(client, mlflow_client), resources_from_environment())
