"""Deciding on a version, and seeing it through: where the devices are ours to run, they run until
its rollout has ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.desk import clouds
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import await_devices, enrolled, running_fleet
from registry.model_version import PENDING, Approval, Version
from registry.rollout.model import TERMINAL_STATES, Rollout

if TYPE_CHECKING:
    from registry.wiring import Registry

DEVICE_SECONDS = 120.0
BEGIN_SECONDS = 30.0


def decide_on(
    cloud: clouds.Cloud, name: str, approval: Approval, reason: str, *, override: bool = False
) -> tuple[Version, Rollout | None]:
    """Approve or reject a version (a number, NAME/NUMBER or a package's ARN), and follow its
    rollout; what came of both.

    Raises UsageError where pre-checks fail without ``override``, RegistryError where the version's
    state forbids it; then nothing was changed.
    """
    from pipelines.desk.registry import open_registry
    from registry.approval import decide, find

    if not reason.strip():
        raise UsageError("The reason is empty: say why, for those who come after you.")
    registry, ended = open_registry(), None
    version = find(registry.mlflow.versions(), name)
    fleet = registry.candidates.of(version).fleet if approval == "Approved" else ""
    before = registry.store.current(fleet).number if fleet else 0
    said = _checked(registry, version, reason, override) if fleet else reason
    with devices_up(cloud, fleet):
        decide(registry.mlflow, registry.sagemaker, registry.audit, version, approval, said)
        if fleet:
            ended = follow(cloud, registry, _begun(registry, fleet, before))
    return find(registry.mlflow.versions(version.name), version.model_version), ended


def _checked(registry: Registry, version: Version, reason: str, override: bool) -> str:
    """The reason, with what was overridden; raises UsageError where pre-checks fail and nobody has
    decided otherwise.
    """
    from registry.evidence.prechecks import failed
    from registry.promotion import OVERRIDE

    wrong = failed(registry.candidates.checks(version))
    if wrong and not override and version.approval == PENDING:
        name = version.model_version
        raise UsageError(
            f"{name}: {wrong}. Nothing was changed; --override (in a notebook override=True) approves it all the same."
        )
    return f"{reason} {OVERRIDE}" if wrong and override else reason


def _begun(registry: Registry, fleet: str, before: int) -> Rollout | None:
    """The rollout that an approval began; None when it waits for its turn."""
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
def devices_up(cloud: clouds.Cloud, fleet: str) -> Iterator[None]:
    """On the local cloud: the fleet's enrolled devices run while the block lasts, unless they run
    already. On AWS they run anyway.
    """
    count = enrolled(cloud, fleet) if fleet and isinstance(cloud, LocalCloud) else 0
    if not count or not isinstance(cloud, LocalCloud):
        yield
        return
    from fl_runtime.run.aws import client

    began = time.time()
    with running_fleet(cloud, fleet, count, None, client("iot")):
        await_devices(cloud, fleet, count, client("dynamodb"), began)
        yield


def follow(cloud: clouds.Cloud, registry: Registry, rollout: Rollout | None) -> Rollout | None:
    """Wait for a rollout's end, where devices answer in seconds; on AWS they answer in their own
    time.
    """
    if rollout is None or not isinstance(cloud, LocalCloud):
        return rollout
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline:
        found = registry.store.get(rollout.fleet, rollout.number)
        if (
            found is not None
            and found.state in TERMINAL_STATES
            and registry.store.current(rollout.fleet).under_way != rollout.number
        ):
            return found
        rollout = found or rollout
        time.sleep(0.2)
    return rollout
