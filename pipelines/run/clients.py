"""The AWS clients that starting and following a run takes. Commands and the desk make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3

from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.state import RunTable
from pipelines.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class RunClients:
    """What a run's starter and followers work with."""

    objects: S3Objects
    runs: RunTable
    sagemaker: Any
    session: boto3.Session
    """The SageMaker SDK makes clients of its own with it."""


def run_clients(deployment: Deployment) -> RunClients:
    """Make the clients, by the environment's credentials and endpoint. For entry points only."""
    return RunClients(
        objects=S3Objects(client("s3"), deployment.bucket),
        runs=RunTable(client("dynamodb"), deployment.runs_table),
        sagemaker=client("sagemaker"),
        session=boto3.Session(),
    )
