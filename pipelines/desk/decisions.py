"""Deciding on a version, and following its rollout where the devices are local."""

from __future__ import annotations

import contextlib
import getpass
import time
from collections.abc import Iterable, Iterator

from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.eligibility import foreign_orders, is_of_earlier_release
from pipelines.desk.clouds import Cloud, is_local
from pipelines.devices.fleet_clients import FleetClients
from pipelines.errors import UsageError
from registry.approval import decide, find
from registry.evidence.prechecks import failed
from registry.identity import record_override
from registry.model_version import PENDING, Approval, Version
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.rollout.model import TERMINAL_STATES, Candidate, Rollout
from registry.wiring import Registry

DEVICE_SECONDS = 120.0
"""How long local devices have for a rollout."""
BEGIN_SECONDS = 30.0
"""How long the approval's event may take to begin a rollout."""


def decide_on(
    cloud: Cloud,
    clients: FleetClients,
    registry: Registry,
    name: str,
    approval: Approval,
    reason: str,
    *,
    override: bool = False,
) -> tuple[Version, Rollout | None]:
    """Approve or reject a version, and follow the rollout that an approval begins.

    Args:
        cloud: Where it is registered.
        clients: Bring local devices up, so that the rollout can reach them.
        rollouts: The registries and the registry.
        name: A version number, NAME/NUMBER, or a model package's ARN.
        approval: ``Approved`` or ``Rejected``.
        reason: Why; kept in both registries and in the audit trail.
        override: Approve although prechecks fail.

    Returns:
        The version as decided, and the rollout as far as it was followed; None when none began.

    Raises:
        UsageError: Prechecks fail, or the reason is empty. Nothing was changed.
        RegistryError: The version's state forbids it. Nothing was changed.

    """
    if not reason.strip():
        raise UsageError("The reason is empty: say why, for those who come after you.")
    ended = None
    version = find(registry.mlflow.versions(), name)
    fleet = _checked(registry, version, reason, override=override) if approval == "Approved" else ""
    before = registry.store.current(fleet).number if fleet else 0
    with devices_up(cloud, clients, fleet):
        if fleet:
            check_agents(registry.devices.fleet(fleet), fleet)
        decide(
            registry.mlflow,
            registry.sagemaker,
            registry.audit,
            version,
            approval,
            reason,
            who=registry.caller(),
        )
        if fleet:
            ended = follow(cloud, registry, _begun(registry, fleet, before))
    return find(registry.mlflow.versions(version.name), version.model_version), ended


def check_agents(devices: Iterable[DeviceStatus], fleet: str) -> None:
    """Raise UsageError when no agent of a fleet could follow this cloud's manifest."""
    beats = {status.device: status.heartbeat for status in devices}
    told = {name: beat for name, beat in beats.items() if beat and beat.state != "offline"}
    if told and all(map(is_of_earlier_release, told.values())):
        name, beat = next(iter(told.items()))
        raise UsageError(
            f"No device of fleet {fleet} can take a model from this cloud; {name}: "
            f"{foreign_orders(beat)}. Nothing was changed."
        )


def _checked(registry: Registry, version: Version, reason: str, *, override: bool) -> str:
    """Check a version that is about to be approved, and record an override. Returns its fleet.

    Raises:
        UsageError: Prechecks fail and are not overridden.
        RegistryError: The caller may not override them, or the version is not what was linked.

    """
    fleet = signed_candidate(registry, version).fleet
    wrong = failed(registry.candidates.checks(version))
    if wrong and not override and version.approval == PENDING:
        raise UsageError(
            f"{version.model_version}: {wrong}. Nothing was changed; "
            "--override (in a notebook override=True) approves it all the same."
        )
    if wrong and override:
        override_checks(registry, version, reason, wrong)
    return fleet


def override_checks(registry: Registry, version: Version, reason: str, wrong: str) -> None:
    """Record that the caller overrides failed prechecks. Raises RegistryError when the policy does
    not allow it.
    """
    record_override(
        registry.audit,
        registry.policy().prechecks,
        version,
        who=registry.caller(),
        why=reason,
        wrong=wrong,
        at=time.time(),
        user=getpass.getuser(),
    )


def signed_candidate(registry: Registry, version: Version) -> Candidate:
    """A version as a rollout's candidate. A version that 0.4 linked gets its signed record first,
    and so does the one that its fleet runs, to which a rollback would return.

    Raises RegistryError when something is not what was linked.
    """
    try:
        candidate = registry.rollouts.candidate(version)
    except ProvenanceMissing:
        registry.link_function.sign(version.model_package_arn)
        candidate = registry.rollouts.candidate(version)
    running = registry.store.current(candidate.fleet).candidate
    if running is not None:
        try:
            registry.candidates.verify(running)
        except ProvenanceMissing:
            present = find(registry.mlflow.versions(), running.model_version)
            registry.link_function.sign(present.model_package_arn)
        except ProvenanceMismatch:
            # The rollout decides: it may be the way back from that very model.
            return candidate
    return candidate


def _begun(registry: Registry, fleet: str, before: int) -> Rollout | None:
    """The rollout that an approval has begun; None when it waits for another to end."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < deadline:
        current = registry.store.current(fleet)
        if current.number > before:
            return registry.store.get(fleet, current.number)
        if current.next:
            return None
        time.sleep(0.1)
    return None


@contextlib.contextmanager
def devices_up(cloud: Cloud, clients: FleetClients, fleet: str) -> Iterator[None]:
    """On the local cloud: run the fleet's enrolled devices while the block lasts.

    Does nothing on AWS, where devices run by themselves, and for an empty fleet.
    """
    if not is_local(cloud) or not fleet:
        yield
        return
    # An environment for AWS lacks what the local cloud needs.
    from pipelines.local.cloud import LocalCloud
    from pipelines.local.fleet import await_devices, enrolled, running_fleet
    from pipelines.local.hosting.wishes import ask_for

    if not isinstance(cloud, LocalCloud) or not enrolled(cloud, fleet):
        yield
        return
    count, began = enrolled(cloud, fleet), time.time()
    with contextlib.ExitStack() as stack:
        if cloud.info.stays:
            ask_for(cloud.home, fleet)
        else:
            stack.enter_context(running_fleet(cloud, clients, fleet, count, None))
        await_devices(cloud, fleet, count, clients.dynamodb, began)
        yield


def follow(cloud: Cloud, registry: Registry, rollout: Rollout | None) -> Rollout | None:
    """Wait until a rollout on the local cloud has ended, and return it as it is then.

    On AWS devices answer in their own time: the rollout is returned as it is.
    """
    if rollout is None or not is_local(cloud):
        return rollout
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline:
        found = registry.store.get(rollout.fleet, rollout.number)
        under_way = registry.store.current(rollout.fleet).under_way
        if found is not None and found.state in TERMINAL_STATES and under_way != rollout.number:
            return found
        rollout = found or rollout
        time.sleep(0.2)
    return rollout
