"""A cloud as its user reaches it: clients that lead to it, whatever the process's environment says.

Commands set the environment for as long as they run. A notebook must not: its other cells, and the
threads of what it uses, read the same environment.
"""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fl_runtime.run.aws import S3Objects, client_config
from fl_runtime.run.state import RunTable
from pipelines.aws.mlflow_address import tracking_uri
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

    def __init__(self, cloud: Cloud, session: Any, mlflow_uri: str) -> None:
        """``session``: a boto3 session that leads to it. ``mlflow_uri``: the tracking server."""
        self.cloud = cloud
        self.session = session
        self.mlflow_uri = mlflow_uri
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
                self._made[service] = made(self.session, service)
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

    def stay(self) -> Access:
        """The same, for what goes on without this process: a local cloud outlives its starter from
        now on, and hosts devices.
        """

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
        check_deployed(cloud.deployment, lambda service: made(session, service))
        given = os.environ.get(MLFLOW_VARIABLE)
        uri = given or tracking_uri(made(session, "cloudformation"), cloud.deployment)
        return cls(Access(cloud, session, uri))

    def open(self) -> Access:
        """The deployment."""
        return self.access

    def stay(self) -> Access:
        """The deployment, which stays anyway."""
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
        """The cloud that runs in the home; one that is started here stays until it is idle."""
        from pipelines.local.cloud import hosted_cloud

        with self._lock:
            running = self._home.info()
            if self._access is None or running is None or running != self._info:
                self._enter(hosted_cloud(self._home))
            self._home.used_file.touch()
            return self._entered()

    def stay(self) -> Access:
        """The same; it stays from now on."""
        self.open()
        with self._lock:
            if not self._info.stays:
                self._enter(self._entered().cloud.keep())  # type: ignore[attr-defined]
            return self._entered()

    def _enter(self, cloud: LocalCloud) -> None:
        self._info = cloud.info
        session = local_session(cloud)
        self._access = Access(cloud, session, self._home.mlflow_uri)

    def _entered(self) -> Access:
        if self._access is None:
            raise LookupError("the door was never opened")
        return self._access


def made(session: Any, service: str) -> Any:
    """A session's client of a service, with our retry policy."""
    return session.client(service, config=client_config(service))


def local_session(cloud: LocalCloud) -> Any:
    """A boto3 session that leads to a local cloud, whatever the user's own AWS settings are: the
    SageMaker SDK takes it as well.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    there = cloud.environment()

    class LocalSession(boto3.Session):  # type: ignore[misc]  # boto3 has no types
        """Gives each client its endpoint, and keeps it off a company's proxy."""

        def client(self, service_name: str, *args: Any, **options: Any) -> Any:
            """See boto3."""
            own = f"AWS_ENDPOINT_URL_{service_name.upper()}"
            # None is what boto3's own resource() gives.
            given = options.pop("endpoint_url", None)
            options["endpoint_url"] = given or there.get(own, there["AWS_ENDPOINT_URL"])
            config = options.pop("config", None) or Config()
            options["config"] = config.merge(Config(proxies={}))
            return super().client(service_name, *args, **options)

    unset = (None, None, None, None)
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars={"profile": unset, "ca_bundle": unset, **files})
    return LocalSession(
        aws_access_key_id=there["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=there["AWS_SECRET_ACCESS_KEY"],
        region_name=there["AWS_REGION"],
        botocore_session=core,
    )
