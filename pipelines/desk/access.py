"""A cloud as its user reaches it: clients that lead to it, whatever the process's environment says.

Commands set the environment for as long as they run. A notebook must not: its other cells, and the
threads of what it uses, read the same environment.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fl_runtime.run.aws import S3Objects, client_config
from fl_runtime.run.state import RunTable
from pipelines.desk.clouds import MLFLOW_VARIABLE, AwsCloud, Cloud, check_deployed, is_local
from pipelines.devices.fleet_clients import FleetClients
from pipelines.run.clients import RunClients
from pipelines.run.runner import Runner
from registry.wiring import Registry, make_clients, resources_from_environment

if TYPE_CHECKING:
    from pipelines.local.cloud import LocalCloud
    from pipelines.local.home import Home


class Access:
    """One cloud, with its clients. For several threads."""

    def __init__(self, cloud: Cloud, make: Callable[[str], Any], mlflow_uri: str) -> None:
        """``make``: makes the boto3 client of a service. ``mlflow_uri``: the tracking server."""
        self.cloud = cloud
        self.mlflow_uri = mlflow_uri
        self._make = make
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Whether it is a local cloud, whose devices run on this machine."""
        return is_local(self.cloud)

    def client(self, service: str) -> Any:
        """The boto3 client of a service."""
        with self._lock:  # a session is not for several threads, its clients are
            if service not in self._made:
                self._made[service] = self._make(service)
            return self._made[service]

    @functools.cached_property
    def mlflow(self) -> Any:
        """An MlflowClient."""
        # MLflow's telemetry is read when it is imported, and is the one thing that is set here:
        # https://mlflow.org/docs/latest/community/usage-tracking/
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.mlflow_uri, registry_uri=self.mlflow_uri)

    @functools.cached_property
    def objects(self) -> S3Objects:
        """The bucket of runs, apps and models."""
        return S3Objects(self.client("s3"), self.cloud.deployment.bucket)

    @functools.cached_property
    def run_clients(self) -> RunClients:
        """What starting, following and resuming runs takes."""
        runs = RunTable(self.client("dynamodb"), self.cloud.deployment.runs_table)
        return RunClients(objects=self.objects, runs=runs, sagemaker=self.client("sagemaker"))

    @functools.cached_property
    def runner(self) -> Runner:
        """What starts, follows and reports runs."""
        return Runner(self.cloud.deployment, self.run_clients)

    @functools.cached_property
    def fleet_clients(self) -> FleetClients:
        """What brings local devices up."""
        names = ("iot", "kms", "dynamodb")
        return FleetClients(**{name: self.client(name) for name in names})

    @functools.cached_property
    def registry(self) -> Registry:
        """Both registries, with audit trail, policy and staged rollouts."""
        names = resources_from_environment(self.cloud.deployment.environment())
        return Registry(make_clients(self.client, lambda: self.mlflow), names)


class Door(Protocol):
    """The way to a cloud: opened anew for each call, because a local cloud may have ended."""

    def open(self) -> Access:
        """The cloud as it is now; it is there."""

    @property
    def home(self) -> Path | None:
        """The folder of a local cloud; None on AWS."""


@dataclass(frozen=True)
class AwsDoor:
    """To the deployment in the account of the environment's credentials."""

    access: Access
    home: Path | None = None

    @classmethod
    def of_environment(cls) -> AwsDoor:
        """Raises UsageError: no credentials, no region, or nothing is deployed there."""
        import boto3

        cloud, session = AwsCloud.of_environment(), boto3.Session()

        def make(service: str) -> Any:
            return session.client(service, config=client_config(service))

        check_deployed(cloud.deployment, make)
        uri = os.environ.get(MLFLOW_VARIABLE, cloud.deployment.mlflow_arn)
        return cls(Access(cloud, make, uri))

    def open(self) -> Access:
        """The deployment."""
        return self.access


class LocalDoor:
    """To the local cloud of a home. It is started when there is none, or when it has ended."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._access: Access | None = None
        self._info: Any = None
        self._lock = threading.Lock()

    @property
    def home(self) -> Path | None:
        """The cloud's folder."""
        return self._home.root

    def open(self) -> Access:
        """The cloud that runs in the home; it outlives this process until it is idle."""
        from pipelines.local.cloud import hosted_cloud

        with self._lock:
            running = self._home.info()
            if self._access is None or running is None or running != self._info:
                cloud = hosted_cloud(self._home)
                self._info = cloud.info
                self._access = Access(cloud, _local_client(cloud), self._home.mlflow_uri)
            self._home.used_file.touch()
            return self._access


def _local_client(cloud: LocalCloud) -> Callable[[str], Any]:
    """Makes clients that lead to a local cloud, whatever the user's own AWS settings are."""
    import boto3
    import botocore.session
    from botocore.config import Config

    there = cloud.environment()
    unset = (None, None, None, None)
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars={"profile": unset, "ca_bundle": unset, **files})
    session = boto3.Session(
        aws_access_key_id=there["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=there["AWS_SECRET_ACCESS_KEY"],
        region_name=there["AWS_REGION"],
        botocore_session=core,
    )

    def make(service: str) -> Any:
        url = there.get(f"AWS_ENDPOINT_URL_{service.upper()}", there["AWS_ENDPOINT_URL"])
        config = client_config(service).merge(Config(proxies={}))
        return session.client(service, endpoint_url=url, config=config)

    return make
