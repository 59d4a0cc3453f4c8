"""Which cloud a command works on: the local one, or the AWS account that the environment's
credentials belong to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines.deployment import Deployment
from pipelines.devices.provisioning import Endpoint, trusted_keys
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home

CHOICES = ("local", "aws")
VARIABLE = "MLEDGEOPS_CLOUD"
PREFIX_VARIABLE = "MLEDGEOPS_PREFIX"


class Cloud(Protocol):
    """What commands need of either."""

    @property
    def deployment(self) -> Deployment:
        """The names of what is deployed."""

    def endpoint(self) -> Endpoint:
        """Where devices connect."""


@dataclass(frozen=True)
class AwsCloud:
    """A deployment in the environment's account and region."""

    deployment: Deployment

    def endpoint(self) -> Endpoint:
        """The account's IoT data endpoint; its CA is Amazon's root, which awscrt and operating
        systems carry.
        """
        from fl_runtime.run.aws import client

        host = client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        return Endpoint(
            host=host,
            port=8883,
            ca=_amazon_root(),
            trust=trusted_keys(client("kms"), self.deployment),
        )

    @classmethod
    def of_environment(cls) -> AwsCloud:
        """Raises UsageError when there are no credentials or no region."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        region = boto3.Session().region_name
        if not region:
            raise UsageError(
                "No AWS region is set: set AWS_DEFAULT_REGION, or a region in your AWS profile."
            )
        try:
            # Somebody waits for the answer: one try, and not for long.
            config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
            account = boto3.client("sts", config=config).get_caller_identity()["Account"]
        except (BotoCoreError, ClientError) as error:
            raise UsageError(
                f"AWS does not know who you are ({error}): sign in, or run without --cloud aws."
            ) from error
        return cls(
            Deployment(
                account=account, region=region, prefix=os.environ.get(PREFIX_VARIABLE, "mledgeops")
            )
        )


@contextlib.contextmanager
def use(which: str = "") -> Iterator[Cloud]:
    """The cloud asked for, else that of MLEDGEOPS_CLOUD, else the local one; the environment leads
    to it while the block lasts.
    """
    which = which or os.environ.get(VARIABLE, "local")
    if which not in CHOICES:
        raise UsageError(f"{VARIABLE} is {which!r}; it must be local or aws.")
    if which == "local":
        with LocalCloud.use(Home.default()) as cloud:
            yield cloud
        return
    aws = AwsCloud.of_environment()
    os.environ.setdefault("MLFLOW_TRACKING_URI", aws.deployment.mlflow_arn)
    os.environ.update(aws.deployment.environment())
    yield aws


def _amazon_root() -> bytes:
    """Amazon Root CA 1 to 4, from certifi's collection (https://www.amazontrust.com/repository/)."""
    import certifi

    text = Path(certifi.where()).read_text()
    parts = [part for part in text.split("\n\n") if 'Label: "Amazon Root CA' in part]
    return "".join(part[part.index("-----BEGIN") :].strip() + "\n" for part in parts).encode()


def add_option(parser: Any) -> None:
    """The ``--cloud`` option of commands that work on either."""
    parser.add_argument(
        "--cloud", choices=CHOICES, default="", help=f"where (default: {VARIABLE}, else local)"
    )
