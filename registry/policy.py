"""What a candidate must show, and how it goes to the fleet. A file, so that it is reviewed as code
is.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from registry.sagemaker_registry import RegistryError

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From the canary to the fleet."""

    canary: Share = 0.1
    canary_devices: Annotated[int, msgspec.Meta(ge=1)] = 1
    """The canary has at least so many devices."""
    waves: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=10)] = (0.5, 1.0)
    """Shares of the fleet that have been asked after each wave; the last is 1."""
    success: Share = 0.9
    """Of a wave's devices that answered, so many must have switched before the next wave."""
    abort: Share = 0.2
    """When more than this share of those that answered have failed, the rollout turns back."""
    wave_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 3600.0
    """A wave does not wait longer for devices that are away; they catch up when they are back."""
    soak_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 0.0
    """The canary is watched for so long before the first wave."""
    tolerance: Share = 0.05
    """How much worse a model may be on a device's own data, see
    :class:`edge.protocol.signed.Manifest`.
    """


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a candidate's evidence must show before it goes to devices, see
    :mod:`registry.evidence.prechecks`.
    """

    better_by: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.0
    """By this share of the champion's metric, on the devices' own data; negative: it may be so much
    worse.
    """
    group_worse_by: Share = 0.1
    """No cohort, and no group of devices with one label, may be worse by more."""
    group_devices: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Groups with fewer devices are not judged: a label that each device has for itself makes no
    group.
    """
    participants: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Devices that made the last round."""
    participation: Share = 0.5
    """Of the run's devices, so many took part at least once."""
    rejected: Share = 0.2
    """Of the updates that came, so many may have been refused."""
    drift: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """How far, in standard deviations, the inputs of the model in use may have moved on the median
    device.
    """


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``policy.toml``: the tables ``[gates]`` and ``[rollout]``; what is left out has its default."""

    gates: Gates = Gates()
    rollout: Rollout = Rollout()


def read_policy(file: Path) -> Policy:
    """Read and check a policy file; raises RegistryError in one sentence."""
    try:
        return check(msgspec.convert(tomllib.loads(file.read_text()), Policy), str(file))
    except OSError as error:
        raise RegistryError(f"The policy {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"The policy {file} is not valid TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise RegistryError(f"The policy {file} is not valid: {error}.") from error


def check(policy: Policy, name: str) -> Policy:
    """What types cannot say."""
    waves = policy.rollout.waves
    if list(waves) != sorted(waves) or waves[-1] != 1:
        raise RegistryError(
            f"The policy {name} has the waves {list(waves)}; they must grow, and the last must be 1."
        )
    return policy
