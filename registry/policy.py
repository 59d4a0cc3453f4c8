"""The policy: which prechecks a candidate must pass, and how a rollout is staged.

It is written as a TOML file, so that it can be reviewed like code. The policy in force is an S3
object.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from edge import typed
from edge.protocol.errors import ProtocolError
from edge.protocol.text import convert, parse_json, printable
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.ports import ObjectStore
from registry.audit import AuditTrail
from registry.errors import RegistryError

POLICY_KEY = "policy/policy.json"
"""S3 key of the policy in force."""
_AGAIN = "Put the right one in force with `mledgeops policy FILE`."
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RolloutPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table ``[rollout]``: from the canary to the fleet."""

    canary: Share = 0.1
    """Share of the fleet that gets the model first."""
    canary_devices: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Smallest number of canary devices."""
    waves: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=10)] = (0.5, 1.0)
    """Share of the fleet that has got the model after each wave, ascending; the last is 1."""
    success: Share = 0.9
    """Share of the devices that answered that must have switched before the next wave begins."""
    abort: Share = 0.2
    """The rollout rolls back when more than this share of the devices that answered have failed."""
    wave_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 3600.0
    """How long a wave waits for offline devices. They still switch when they come back."""
    soak_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 0.0
    """How long the canary is watched before the first wave."""
    manifest_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 30
    """Days until a manifest expires. Devices that are still waiting for theirs get a new one. 0:
    never, for fleets with agents of 0.4 or earlier, which refuse a manifest with an expiry.
    """
    tolerance: Share = 0.05
    """How much worse a model may be on a device's own data, see
    :class:`edge.protocol.signed.Manifest`.
    """


class PrecheckPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table ``[gates]``: what a candidate's evidence must show, see
    :mod:`registry.evidence.prechecks`.
    """

    better_by: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.0
    """Required improvement, as a share of the champion's metric on the devices' own data; negative:
    how much worse the candidate may be.
    """
    group_worse_by: Share = 0.1
    """How much worse any cohort, or any group of devices with the same label, may be."""
    group_devices: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Smallest group that is judged. It excludes labels that are unique to each device."""
    participants: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Smallest number of devices in the last round."""
    participation: Share = 0.5
    """Smallest share of the run's devices that took part at least once."""
    rejected: Share = 0.2
    """Largest share of received updates that were rejected."""
    outliers: Share = 0.0
    """Largest share of devices whose metric may be out of all proportion."""
    drift: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Largest input drift of the champion on the median device, in standard deviations."""
    override_by: Annotated[tuple[str, ...], msgspec.Meta(max_length=50)] = ()
    """Patterns of the ARNs that may override failed prechecks; none: whoever may approve."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``policy.toml``: tables and keys that are left out have their defaults."""

    prechecks: PrecheckPolicy = msgspec.field(default=PrecheckPolicy(), name="gates")
    """Files and stored policies call it ``gates``."""
    rollout: RolloutPolicy = RolloutPolicy()


def read_policy(file: Path) -> Policy:
    """Read and check a policy file. Raises RegistryError."""
    try:
        policy = typed.convert(tomllib.loads(file.read_text()), Policy)
    except OSError as error:
        raise RegistryError(f"The policy {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"The policy {file} is not valid TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise RegistryError(f"The policy {file} is not valid: {error}.") from error
    waves = policy.rollout.waves
    if list(waves) != sorted(waves) or waves[-1] != 1:
        raise RegistryError(
            f"The policy {file} has the waves {list(waves)}; "
            "they must grow, and the last must be 1."
        )
    return policy


def policy_in_force(objects: ObjectStore) -> Policy:
    """The policy that was put in force last, else the defaults. Raises RegistryError when it cannot
    be read.
    """
    try:
        found: Policy = parse_json(objects.get(POLICY_KEY), Policy, "The policy in force")
    except ObjectMissing:
        return Policy()
    except ProtocolError as error:
        raise RegistryError(f"{error} {_AGAIN}") from error
    return found


def recorded_policy(objects: ObjectStore, audit: AuditTrail) -> Policy:
    """The policy in force, as the audit trail has it.

    Raises RegistryError for one that nobody has put in force: who can write the object could
    otherwise switch off prechecks and canaries.
    """
    found, entry = policy_in_force(objects), audit.last(["policy"], ["policy"])
    recorded, by = Policy(), "nobody has put another than the default in force"
    if entry is not None:
        by = f"{printable(entry.who)} put that one in force"
        try:
            recorded = convert(entry.details.get("policy"), Policy, "The policy of the audit trail")
        except ProtocolError as error:
            raise RegistryError(f"{error} {_AGAIN}") from error
    if found != recorded:
        raise RegistryError(
            f"The policy in S3 ({POLICY_KEY}) is not the one that the audit trail has: {by}."
            f" {_AGAIN}"
        )
    return found


def put_in_force(
    objects: ObjectStore, audit: AuditTrail, policy: Policy, *, who: str, at: float
) -> None:
    """Record who replaces the policy in force, and replace it."""
    # Recorded first: a crash between the two leaves an entry too many, never a policy without one.
    content = msgspec.to_builtins(policy)
    audit.append(at=at, who=who, what="policy", subject="policy", why="", policy=content)
    objects.put(POLICY_KEY, msgspec.json.encode(policy))
