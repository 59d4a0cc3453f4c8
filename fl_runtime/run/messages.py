"""The messages between server and proxy: a request for one phase, and the events it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from edge.protocol.messages import ObjectRef, Timing
from edge.protocol.names import Name
from edge.protocol.records import ArrayMap

EXAMPLES = "num-examples"
"""The metric with a device's number of examples, unless the strategy names another."""
MetricLayout = dict[str, int]
"""Metrics by name: the length of a list, -1 for a number."""


class ArraySpec(msgspec.Struct, frozen=True):
    """Name, dtype and shape of one array of the model. ``dtype`` is NumPy's, such as ``<f4``."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def array_specs(arrays: ArrayMap) -> list[ArraySpec]:
    """The specifications of a model's arrays, in order."""
    return [ArraySpec(name, array.dtype.str, array.shape) for name, array in arrays.items()]


def layout_of(metrics: Mapping[str, Any]) -> MetricLayout:
    """The layout of a device's metrics. Only metrics of one layout can be averaged."""
    return {name: len(value) if isinstance(value, list) else -1 for name, value in metrics.items()}


class Target(msgspec.Struct, frozen=True):
    """A device to ask, and the id of the message that it answers."""

    device: Name
    node_id: int
    message_id: str
    weight_limit: float = 0.0
    """Largest example count that earlier rounds make plausible; 0: nothing is known."""
    content: int = 0
    """What the device gets: 0 for the request's content, N for its Nth other one."""
    group_id: str = ""
    """Of the message, as the app gave it."""


class DeviceResult(msgspec.Struct, frozen=True, kw_only=True, tag="device"):
    """The outcome of one device in one phase. Where the phase does not fold, ``content`` or
    ``update`` carries its reply.
    """

    device: Name
    node_id: int
    message_id: str
    status: Literal["ok", "error", "spare"]
    """``spare``: an over-selected reply, not needed because enough others came first."""
    code: str = ""
    """Reason code of an error."""
    reason: str = ""
    norm: float = 0.0
    """L2 norm of the update's change; 0 where it was not measured."""
    examples: float = 0.0
    """The example count that it reports, its weight; 0 where it was not checked."""
    metrics: dict[str, Any] = {}
    content: str = ""
    update: ObjectRef | None = None
    timing: Timing = Timing()
    bytes_up: int = 0
    bytes_down: int = 0


class OrderKey(msgspec.Struct, frozen=True):
    """The right to give orders to one cohort in one phase. It goes to whoever serves the cohort."""

    private: bytes
    """Ed25519, 32 bytes."""
    grant: bytes
    """The grant, encoded."""
    signature: str
    """KMS's signature over the grant."""

    def __repr__(self) -> str:
        """Without the private key: logs and tracebacks show it."""
        return f"OrderKey({self.grant!r})"


class OtherContent(msgspec.Struct, frozen=True):
    """What some devices of a phase get in the place of the request's content."""

    content: str
    """The record skeleton."""
    arrays: ObjectRef | None
    key: OrderKey
    """Signs the orders that carry it: a key is good for one content."""


class PhaseRequest(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """Ask one cohort to carry out one phase."""

    run: Name
    fleet: Name
    cohort: Name
    phase: str
    """From :func:`fl_runtime.run.keys.phase_id`."""
    server_round: int
    kind: str
    """Flower's message type, such as ``train`` or ``evaluate``."""
    app: str
    """Digest of the app's bundle."""
    targets: list[Target]
    content: str
    """The record skeleton that all devices get, but those with another content."""
    arrays: ObjectRef | None
    """The global weights."""
    seconds: float
    """Time that the devices have."""
    flower_run_id: int
    run_config: str
    """The run's overrides of the app's configuration, as JSON."""
    key: OrderKey
    """Signs the orders of the phase to this cohort's devices."""
    fold: bool
    """Answer with the weighted mean instead of each update."""
    weighted_by: str = EXAMPLES
    """Key of the example count among the metrics."""
    specs: list[ArraySpec] | None = None
    """The arrays that an update must hold; None: any."""
    size_limit: int = 2**31
    """Largest update that is downloaded, in bytes."""
    checked: bool = True
    """False for messages of the app's own making, whose replies need no metrics."""
    any_shape: bool = False
    """Whether replies may hold other records than the model's: the app aggregates them itself."""
    any_metrics: bool = False
    """Whether metrics may be NaN or infinite: the app averages them itself."""
    enough: int = 0
    """Number of valid replies that ends the phase (over-selection); 0: all."""
    norm_limit: float = 0.0
    """Largest L2 norm of a change that counts; 0: derived from the phase's own updates."""
    norm_factor: float = 0.0
    """Whether norms are measured although no limit is known (the server then judges); 0: no."""
    layout: MetricLayout | None = None
    """The metrics that updates are expected to report, see :func:`layout_of`; None: not known. An
    update with others is passed to the server unfolded.
    """
    metric_names: list[str] | None = None
    """The metrics that the app declares, without the example count; others are refused. None: it
    declares none.
    """
    ranges: dict[str, tuple[float, float]] = {}
    """Metrics outside the range that the app declares are refused."""
    others: list[OtherContent] = []
    """Contents of a message to some devices only; :attr:`Target.content` names them."""
    accepted: list[DeviceResult] = []
    """Not empty: no device is asked. Read these updates again and answer with their mean."""


PART_BYTES = 2**20
"""A mean is sent in parts of this length, so that neither side holds all of it in memory."""


class FoldedPart(msgspec.Struct, frozen=True, tag="part"):
    """A part of a mean's records file, which :class:`Folded` ends. Parts come in order, and again
    from the first one when another proxy has taken the cohort over.
    """

    phase: str
    offset: int
    """Bytes of the file before this part."""
    data: bytes


class Folded(msgspec.Struct, frozen=True, tag="folded"):
    """The weighted mean of ``count`` updates of a cohort, as a records file."""

    phase: str
    records: bytes
    """The file, or what follows the parts that have been sent of it."""
    count: int
    devices: list[str] = []
    """Whose updates they are."""


class PhaseDone(msgspec.Struct, frozen=True, tag="done"):
    """The last event of a phase."""

    phase: str


PhaseEvent = DeviceResult | FoldedPart | Folded | PhaseDone


def mismatched_metrics(result: DeviceResult) -> DeviceResult:
    """The failure of a device that reports other metrics than most, which cannot be averaged."""
    return msgspec.structs.replace(
        result,
        status="error",
        code="metrics",
        reason="its metrics differ from those of the other devices",
    )


def over_selected(target: Target) -> DeviceResult:
    """The result of a device whose reply is not needed: enough others came first."""
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
    """The result of a device that failed. ``up`` and ``down`` are bytes."""
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
