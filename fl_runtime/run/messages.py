"""What a server asks of a cohort in one phase, and what comes of it: the messages between server
and proxy.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edge.protocol.messages import Name, ObjectRef, Timing
from edge.protocol.records import ArrayMap


class ArraySpec(msgspec.Struct, frozen=True):
    """Name, dtype and shape of one array, as the server sent it and expects it back."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def array_specs(arrays: ArrayMap) -> list[ArraySpec]:
    """What updates of these weights must look like."""
    return [ArraySpec(name, array.dtype.str, array.shape) for name, array in arrays.items()]


class Target(msgspec.Struct, frozen=True):
    """A device to ask, and the message it is to answer."""

    device: Name
    node_id: int
    message_id: str


class PhaseRequest(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """Ask one cohort for one phase. ``seconds`` is the time the devices have."""

    run: Name
    fleet: Name
    cohort: Name
    phase: str
    server_round: int
    kind: str
    app: str
    targets: list[Target]
    content: str
    arrays: ObjectRef | None
    seconds: float
    flower_run_id: int
    run_config: str
    fold: bool
    weighted_by: str = "num-examples"
    specs: list[ArraySpec] | None = None
    signature: str = ""
    """The server's, over the phase's commands."""
    size_limit: int = 2**31
    """Bytes of an update that may be downloaded."""
    checked: bool = True
    """False for messages of the app's own making, whose replies need no metrics."""
    enough: int = 0
    """The phase is over after so many valid replies; 0: after all."""
    norm_limit: float = 0.0
    """Largest L2 norm of a change that counts; 0: found among the phase's own updates."""
    norm_factor: float = 0.0
    """Without a limit: a change so many times the median's is odd; 0: none is."""


class DeviceResult(msgspec.Struct, frozen=True, kw_only=True, tag="device"):
    """What came of one device in one phase. ``content`` or ``update`` carries the reply when not
    folded.
    """

    device: Name
    node_id: int
    message_id: str
    status: Literal["ok", "error", "spare"]
    """``spare``: enough others had answered."""
    code: str = ""
    reason: str = ""
    norm: float = 0.0
    metrics: dict[str, Any] = {}
    content: str = ""
    update: ObjectRef | None = None
    timing: Timing = Timing()
    bytes_up: int = 0
    bytes_down: int = 0


class Folded(msgspec.Struct, frozen=True, tag="folded"):
    """The cohort's weighted mean, as a records file."""

    phase: str
    records: bytes
    count: int


class PhaseDone(msgspec.Struct, frozen=True, tag="done"):
    """The cohort has nothing more to say in this phase."""

    phase: str


PhaseEvent = DeviceResult | Folded | PhaseDone


def mismatched_metrics(result: DeviceResult) -> DeviceResult:
    """The result of a device that reports other metrics than most: it does not count."""
    return msgspec.structs.replace(
        result,
        status="error",
        code="metrics",
        reason="its metrics are not those of the other devices",
    )


def over_selected(target: Target) -> DeviceResult:
    """A device that was asked in vain: enough others had answered."""
    return DeviceResult(
        device=target.device,
        node_id=target.node_id,
        message_id=target.message_id,
        status="spare",
        code="spare",
    )


def failure(
    target: Target, code: str, reason: str, timing: Timing = Timing(), up: int = 0, down: int = 0
) -> DeviceResult:
    """A device whose part in the phase came to nothing."""
    return DeviceResult(
        device=target.device,
        node_id=target.node_id,
        message_id=target.message_id,
        status="error",
        code=code,
        reason=reason,
        timing=timing,
        bytes_up=up,
        bytes_down=down,
    )
