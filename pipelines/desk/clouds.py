"""The cloud that a command works on: the local one, or the AWS account of the credentials."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pipelines.aws.deploy import Stacks
from pipelines.aws.mlflow_address import tracking_uri
from pipelines.deployment import Deployment
from pipelines.devices.provisioning import DeviceEndpoint, trusted_keys
from pipelines.errors import UsageError
from pipelines.run.account import deployment_of

Choice = Literal["local", "aws"]
VARIABLE = "MLEDGEOPS_CLOUD"
MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"


class Cloud(Protocol):
    """What commands need of either cloud."""

    @property
    def deployment(self) -> Deployment:
        """The names of the deployed resources."""

    def endpoint(self, kms: Any) -> DeviceEndpoint:
        """Where devices connect, and the CA and keys that they trust."""


@dataclass(frozen=True)
class AwsCloud:
    """A deployment in an AWS account and region."""

    deployment: Deployment
    iot: Any
    """IoT client; names the account's own data endpoint."""

    def endpoint(self, kms: Any) -> DeviceEndpoint:
        """The account's IoT data endpoint, whose certificate Amazon's root CAs have signed."""
        host = self.iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        trust = trusted_keys(kms, self.deployment)
        return DeviceEndpoint(host=host, port=8883, ca=amazon_roots(), trust=trust)

    @classmethod
    def of_environment(cls) -> AwsCloud:
        """The deployment in the account of the environment's credentials.

        Raises:
            UsageError: There is no region, or the prefix is none.
            AwsError: There are no valid credentials.

        """
        import boto3

        session = boto3.Session()
        return cls(deployment_of(session), session.client("iot"))


def check_deployed(deployment: Deployment, client: Callable[[str], Any]) -> None:
    """Check that the deployment is there and whole.

    Raises:
        UsageError: It is not.

    """
    stacks = Stacks(client("cloudformation"), client("s3"), deployment.code_bucket)
    if stacks.status(deployment.stacks[-1]) not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise UsageError(
            f"MLEdgeOps is not deployed in account {deployment.account}, {deployment.region}: "
            "`mledgeops deploy --apply` deploys it."
        )


def is_local(cloud: Cloud) -> bool:
    """Whether it is a local cloud, whose devices run on this machine. It tells without importing
    what the local cloud needs, which an environment for AWS does not have.
    """
    return hasattr(cloud, "home")


def chosen(option: str = "") -> Choice:
    """The cloud that the option names, else that of MLEDGEOPS_CLOUD, else the local one.

    Raises:
        UsageError: The variable names no cloud.

    """
    choice = option or os.environ.get(VARIABLE) or "local"
    if choice == "local":
        return "local"
    if choice == "aws":
        return "aws"
    raise UsageError(f"{VARIABLE} is {choice!r}; it must be local or aws.")


@contextlib.contextmanager
def use(option: str = "") -> Iterator[Cloud]:
    """The chosen cloud; while the block lasts, the environment leads boto3 and MLflow to it.

    A local cloud that is not running is started for the block.
    """
    if chosen(option) == "local":
        # The local cloud's parts need packages that an environment for AWS does not have.
        from pipelines.local.cloud import local_cloud
        from pipelines.local.home import Home

        with local_cloud(Home.default()) as cloud:
            yield cloud
        return
    from fl_runtime.run.aws import client

    aws = AwsCloud.of_environment()
    given = os.environ.get(MLFLOW_VARIABLE)
    store = {MLFLOW_VARIABLE: given or tracking_uri(client("cloudformation"), aws.deployment)}
    with _environment({**store, **aws.deployment.environment()}):
        yield aws


@contextlib.contextmanager
def use_store(option: str = "") -> Iterator[bool]:
    """Lead MLflow to the chosen cloud's store while the block lasts, without starting a cloud.

    Yields whether there is anything in it: in a new local home there is no store yet. A store that
    the environment names (``MLFLOW_TRACKING_URI``) goes first.
    """
    if chosen(option) == "aws":
        with use("aws"):
            yield True
        return
    from pipelines.local.home import Home
    from pipelines.local.mlflow_store import check_database, is_finished

    home = Home.default()
    store = os.environ.get(MLFLOW_VARIABLE, home.mlflow_uri)
    if store == home.mlflow_uri:
        check_database(home.mlflow_file, free=True)
    quiet = {name: home.shared_environment()[name] for name in _QUIET}
    with _environment({MLFLOW_VARIABLE: store, **quiet}):
        yield store != home.mlflow_uri or is_finished(home.mlflow_file)


_QUIET = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def amazon_roots() -> bytes:
    """Amazon Root CA 1 to 4 as PEM, from certifi (https://www.amazontrust.com/repository/)."""
    import certifi

    parts = Path(certifi.where()).read_text().split("\n\n")
    roots = [part for part in parts if 'Label: "Amazon Root CA' in part]
    return "".join(part[part.index("-----BEGIN") :].strip() + "\n" for part in roots).encode()
