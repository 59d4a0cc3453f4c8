"""Plays a deployment into a new account, after a first try that failed, and after ``destroy``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines.aws.endpoints import ENDPOINTS, IOT_DATA, service_name
from pipelines.aws.rehearsal.account import Account
from pipelines.aws.rehearsal.clients import AccountClients
from pipelines.aws.rehearsal.rehearsed import Bundle, Rehearsed
from pipelines.aws.rehearsal.rules import Finding, judge
from pipelines.aws.rehearsal.values import Place
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

ACCOUNT = "123456789012"

Deploy = Callable[[AccountClients], None]
"""Deploys through these clients, as ``mledgeops deploy --apply`` does."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a new account would make of a deployment."""

    region: str
    resources: int
    """How many were created."""
    findings: tuple[Finding, ...]

    accepted: bool
    """Whether the account would take it."""


def rehearse(
    d: Deployment, deploy: Deploy, *, bundle: Bundle | None, images: Mapping[str, str]
) -> Report:
    """Deploy into three accounts and judge what was seen.

    Raises:
        DeployError: The deployment stops before its end, for what no rule names.

    """
    zones = tuple(f"{d.region}{letter}" for letter in "abc")
    place = Place(account=d.account, region=d.region, zones=zones)
    offered = _zones_of_services(place)
    account = Account(place=place)
    clients = AccountClients(account, offered)
    deploy(clients)
    first = tuple(account.resources)
    _repeat_after_destroy(d, account, clients, deploy)
    failed = Account(place=place)
    _repeat_after_failure(d, failed, AccountClients(failed, offered), deploy)
    seen = Rehearsed(
        prefix=d.prefix,
        place=place,
        resources=first,
        calls_before=clients.formation.calls_before,
        template_bytes=clients.formation.template_bytes,
        zones_of_services=offered,
        taken=(*account.taken, *failed.taken),
        lost_keys=(*account.lost_keys, *failed.lost_keys),
        bundle=bundle,
        images=images,
    )
    findings = tuple(judge(seen))
    return Report(
        region=d.region,
        resources=len(first),
        findings=findings,
        accepted=not any(finding.refuses for finding in findings),
    )


def _repeat_after_destroy(
    d: Deployment, account: Account, clients: AccountClients, deploy: Deploy
) -> None:
    """Devices were enrolled; the stacks are deleted, and what is retained stays."""
    account.enrol()
    for stack in reversed(d.stacks):
        clients.client("cloudformation").delete_stack(StackName=stack)
    deploy(clients)


def _repeat_after_failure(
    d: Deployment, account: Account, clients: AccountClients, deploy: Deploy
) -> None:
    """The second stack fails at its last resource; the operator deletes it, as the message says,
    and deploys again.
    """
    for stack in d.stacks:
        clients.formation.failing = stack
        with contextlib.suppress(DeployError):
            deploy(clients)
        clients.client("cloudformation").delete_stack(StackName=stack)
        account.trusted.clear()
    deploy(clients)


def _zones_of_services(place: Place) -> dict[str, tuple[str, ...]]:
    """Every endpoint service by its zones. As in large regions, the first zone lacks one:
    https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html
    """
    return {
        service_name(service, place.region): place.zones[1:] if service == IOT_DATA else place.zones
        for service in ENDPOINTS.values()
    }
