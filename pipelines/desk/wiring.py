"""The AWS clients of notebooks and commands: made here, once the environment leads to a cloud.

Everything else in ``pipelines`` is handed what it needs.
"""

from __future__ import annotations

from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.mlflow_runs import mlflow_client
from fl_runtime.run.state import RunTable
from pipelines.deployment import Deployment
from pipelines.devices.fleet_clients import FleetClients
from pipelines.run.clients import RunClients
from pipelines.run.runner import Runner
from registry.wiring import Registry, make_clients, resources_from_environment


def fleet_clients() -> FleetClients:
    """What brings local devices up."""
    return FleetClients(iot=client("iot"), kms=client("kms"), dynamodb=client("dynamodb"))


def run_clients(deployment: Deployment) -> RunClients:
    """What starting, following and resuming runs takes."""
    return RunClients(
        objects=S3Objects(client("s3"), deployment.bucket),
        runs=RunTable(client("dynamodb"), deployment.runs_table),
        sagemaker=client("sagemaker"),
    )


def runner(deployment: Deployment) -> Runner:
    """What starts, follows and reports runs."""
    return Runner(deployment, run_clients(deployment))


def registry() -> Registry:
    """Both registries, with audit trail, policy and staged rollouts."""
    return Registry(make_clients(client, mlflow_client), resources_from_environment())


def objects(deployment: Deployment) -> S3Objects:
    """The bucket of runs, apps and models."""
    return S3Objects(client("s3"), deployment.bucket)
