"""Both registries, for commands and notebooks."""

from __future__ import annotations

from fl_runtime.run.aws import client
from fl_runtime.run.mlflow_runs import mlflow_client
from registry.wiring import Registry, make_clients, resources_from_environment


def open_registry() -> Registry:
    """The registry of the cloud in use, see :func:`pipelines.desk.clouds.use`."""
    return Registry(make_clients(client, mlflow_client), resources_from_environment())
