"""The roles that executions and jobs act as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from pipelines.local.emulators.authority import role_clients
from pipelines.local.home import ACCOUNT

_SERVICES = ("sqs", "lambda", "sagemaker", "s3")


class ServiceClients(Mapping[str, Any]):
    """boto3 clients by service, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._made: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]

    def __iter__(self) -> Iterator[str]:
        return iter(_SERVICES)

    def __len__(self) -> int:
        return len(_SERVICES)


class Roles:
    """Acts as roles of the local account. Their policies decide, as on AWS.

    A role that the local account does not have acts as the account itself: a team's pipeline names
    roles of the team's own account, and is to run here as it is.
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        """``client`` makes clients of this cloud that act as the account."""
        self._account = ServiceClients(client)
        self._iam, self._sts = client("iam"), client("sts")
        self._clients: dict[str, ServiceClients] = {}

    def clients(self, role: str) -> ServiceClients:
        """Clients that act as a role, by its ARN."""
        if role not in self._clients:
            if not self._has(role):
                return self._account  # the role may yet be created: this is not kept
            self._clients[role] = ServiceClients(role_clients(self._sts, role))
        return self._clients[role]

    def credentials(self, role: str) -> dict[str, str]:
        """Environment variables with which a process acts as a role."""
        if not self._has(role):
            return {}
        given = self._sts.assume_role(RoleArn=role, RoleSessionName="job")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    def _has(self, role: str) -> bool:
        if not role.startswith(f"arn:aws:iam::{ACCOUNT}:role/"):
            return False
        try:
            self._iam.get_role(RoleName=role.rsplit("/", 1)[-1])
        except ClientError:
            return False
        return True
