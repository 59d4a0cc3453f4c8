"""A device's reply and update: parsed, downloaded and checked before anything of it counts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from edge.logs import event
from edge.protocol.errors import DEVICE_CODES, OTHER_CODE, ProtocolError
from edge.protocol.messages import ObjectRef, Reply, decode
from edge.protocol.records import (
    Bounds,
    Records,
    ValueMap,
    bounds_of,
    decode_records,
    decode_skeleton,
)
from edge.protocol.text import printable
from fl_runtime.aggregation.blocks import is_finite
from fl_runtime.aggregation.mapped import fetch
from fl_runtime.cohort.kept import KeptUpdates
from fl_runtime.cohort.norm_filter import NormFilter
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import update_key
from fl_runtime.run.messages import (
    ArraySpec,
    DeviceResult,
    PhaseRequest,
    Target,
    array_specs,
    failure,
)
from fl_runtime.run.ports import ObjectStore, StoredReply
from fl_runtime.run.robust import LARGEST

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 1e12
"""Largest plausible example count. A larger one would let one device own the mean."""
FAULT_CODE = "not-opened"
"""Counts updates that the cloud could not open, by a fault of its own or of one of its services."""
MAX_METRICS = 1000
MAX_NUMBERS = 100_000
"""Numbers in all metrics of one update together: metrics may be lists."""
METRIC_NAME_CHARACTERS = 250
"""MLflow takes no longer names (https://mlflow.org/docs/latest/ml/tracking/)."""


@dataclass(frozen=True, kw_only=True)
class UpdateCheck:
    """What an update must satisfy before it may touch the model."""

    weighted_by: str
    """Key of the example count among the metrics."""
    arrays: list[ArraySpec] | None
    """The arrays that the update must hold. None: any (strategies that do not average)."""
    names: list[str] | None = None
    """The metrics that the app declares, without the example count. None: any."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Smallest and largest value that the app declares of a metric."""
    any_shape: bool = False
    """Whether there may be any number of metric records, and no example count."""
    any_metrics: bool = False
    """Whether metrics may be NaN or infinite."""

    def check_layout(self, records: Records) -> None:
        """Raise ProtocolError unless the update holds the arrays of the model."""
        if self.arrays is not None:
            check_arrays(records, self.arrays)

    def weight_of(self, records: Records, *, measured: bool = False) -> float:
        """The update's weight, its example count; 0 where it need not have one. Raises
        ProtocolError, with the reason code, when the update must not count. ``measured``: its
        change has a finite norm, which no array has that holds NaN or infinity.
        """
        self.check_layout(records)
        check_finite(records, measured=measured)
        if len(records.metrics) != 1 and not self.any_shape:
            raise ProtocolError(
                "metrics", f"the reply holds {len(records.metrics)} metric records, not one"
            )
        for group in records.metrics.values():
            _check_metrics(group, finite=not self.any_metrics)
        metrics = next(iter(records.metrics.values()), {})
        self._check_declared(metrics)
        weight = metrics.get(self.weighted_by)
        if not isinstance(weight, int | float) or not 0 < weight <= MAX_EXAMPLES:
            if self.any_shape:
                return 0.0
            raise ProtocolError(
                "examples", f"{self.weighted_by!r} is {weight!r}, not a plausible positive number"
            )
        return float(weight)

    def _check_declared(self, metrics: ValueMap) -> None:
        if self.names is not None and set(metrics) != {*self.names, self.weighted_by}:
            raise ProtocolError("metrics", "the metrics are not those that the app declares")
        for name, (least, most) in self.ranges.items():
            value = metrics.get(name, least)
            items = value if isinstance(value, list) else [value]
            if not all(least <= float(item) <= most for item in items):
                raise ProtocolError(
                    "range", f"metric {name[:60]!r} is outside its range, {least:g} to {most:g}"
                )


def check_arrays(records: Records, expected: list[ArraySpec]) -> None:
    """Names, shapes and dtypes must be the model's. Raises ProtocolError."""
    if len(records.arrays) != 1:
        raise ProtocolError(
            "arrays", f"the reply holds {len(records.arrays)} array records, not one"
        )
    found = array_specs(next(iter(records.arrays.values())))
    if [spec.name for spec in found] != [spec.name for spec in expected]:
        raise ProtocolError("arrays", "the update's array names are not those of the model")
    for got, want in zip(found, expected, strict=True):
        name = got.name[:60]
        if got.shape != want.shape:
            raise ProtocolError("shape", f"array {name!r} has shape {got.shape}, not {want.shape}")
        if got.dtype != want.dtype:
            raise ProtocolError("dtype", f"array {name!r} has dtype {got.dtype}, not {want.dtype}")


def check_finite(records: Records, *, measured: bool = False) -> None:
    """No array may hold NaN, infinity or a number near it. Raises ProtocolError. ``measured``: the
    arrays are known to hold neither NaN nor infinity.
    """
    for group in records.arrays.values():
        for name, array in group.items():
            # Narrower floats are finite up to far below the largest value that counts.
            wide = array.dtype.itemsize == 8
            if array.dtype.kind != "f" or (measured and not wide):
                continue
            if not is_finite(array, LARGEST if wide else math.inf):
                reason = f"array {name[:60]!r} holds NaN, infinity or a value beyond {LARGEST:g}"
                raise ProtocolError("not-finite", reason)


def _check_metrics(metrics: ValueMap, *, finite: bool) -> None:
    if len(metrics) > MAX_METRICS:
        raise ProtocolError("metrics", f"the reply holds {len(metrics)} metrics")
    numbers = 0
    for name, value in metrics.items():
        if not (0 < len(name) <= METRIC_NAME_CHARACTERS and name.isprintable()):
            raise ProtocolError("metrics", f"{name[:60]!r} is not a name for a metric")
        items = value if isinstance(value, list) else [value]
        numbers += len(items)
        if finite and not all(math.isfinite(float(item)) for item in items):
            raise ProtocolError("not-finite", f"metric {name[:60]!r} is NaN or infinite")
        if finite and any(abs(float(item)) > LARGEST for item in items):
            raise ProtocolError("not-finite", f"metric {name[:60]!r} is beyond {LARGEST:g}")
    if numbers > MAX_NUMBERS:
        raise ProtocolError("metrics", f"the reply's metrics hold {numbers} numbers")


class ReplyChecker:
    """Turns the replies of one phase into results, each with a reason code if it does not count."""

    def __init__(
        self,
        objects: ObjectStore,
        request: PhaseRequest,
        norm_filter: NormFilter,
        kept: KeptUpdates,
    ) -> None:
        self._objects = objects
        self._kept = kept
        self._request = request
        self._filter = norm_filter

    def check(self, stored: StoredReply, target: Target) -> tuple[DeviceResult, Records | None]:
        """Parse, download and check one reply. Never raises: it runs in a worker's thread, and one
        device's update must not end the phase of all.

        The records are None when the result failed or when the cohort does not fold it.
        """
        try:
            return self._check(stored, target)
        except Exception as error:  # noqa: BLE001  # a fault of ours costs one device, not all
            return fault(target, error), None

    def _check(self, stored: StoredReply, target: Target) -> tuple[DeviceResult, Records | None]:
        try:
            reply = self._decode(stored, target)
            up = len(stored.body) + (reply.update.size if reply.update else 0)
            if reply.status == "error":
                # Codes become metric dimensions: a device must not make up new ones.
                code = reply.code if reply.code in DEVICE_CODES else OTHER_CODE
                reason = printable(reply.reason)
                return failure(target, code, reason, reply.timing, up, reply.bytes_down), None
            records, norm, examples = self._records(reply, target)
            if reply.update is not None:
                self._kept.keep(self._request, target.device, reply.update, records)
        except ProtocolError as error:
            return failure(target, error.code, str(error)), None
        except ObjectMissing as error:
            return failure(target, "update-missing", str(error)), None
        fold = self._request.fold
        result = DeviceResult(
            device=target.device,
            node_id=target.node_id,
            message_id=target.message_id,
            status="ok",
            metrics=next(iter(records.metrics.values()), {}),
            norm=norm,
            examples=examples,
            content="" if fold else reply.content,
            update=reply.update,
            timing=reply.timing,
            bytes_up=up,
            bytes_down=reply.bytes_down,
        )
        return result, records if fold and trains(self._request) else None

    def _decode(self, stored: StoredReply, target: Target) -> Reply:
        reply = decode(stored.body, Reply)
        answered = (reply.run, reply.phase, reply.message_id)
        if answered != (self._request.run, self._request.phase, target.message_id):
            raise ProtocolError("foreign", "the reply answers another message")
        return reply

    def _records(self, reply: Reply, target: Target) -> tuple[Records, float, float]:
        """The records of a good reply, the L2 norm of its change and its example count."""
        request = self._request
        records = (
            read_update(self._objects, request, target.device, reply.update)
            if reply.update
            else decode_skeleton(reply.content)
        )
        norm = examples = 0.0
        if request.checked:
            check = UpdateCheck(
                weighted_by=request.weighted_by,
                arrays=request.specs if trains(request) else None,
                names=request.metric_names,
                ranges=request.ranges,
                any_shape=request.any_shape,
                any_metrics=request.any_metrics,
            )
            check.check_layout(records)
            norm = self._filter.measure(records)
            measured = self._filter.measures and math.isfinite(norm)
            examples = check.weight_of(records, measured=measured)
            self._filter.judge(norm)
        return records, norm, examples


def trains(request: PhaseRequest) -> bool:
    """Whether a phase's updates hold the model. Of an evaluation only metrics are averaged, which
    the server does: it gets them with each result.
    """
    return request.kind.startswith("train")


def read_again(
    objects: ObjectStore, request: PhaseRequest, result: DeviceResult, kept: KeptUpdates
) -> tuple[DeviceResult, Records | None]:
    """The records of a result: the kept ones, or else read anew; a failure if they have changed."""
    if (records := kept.take(request, result.device, result.update)) is not None:
        return result, records
    try:
        return result, read_update(objects, request, result.device, result.update)
    except (ProtocolError, ObjectMissing) as error:
        return overwritten(result, error), None
    except Exception as error:  # noqa: BLE001  # a fault of ours costs one device, not all
        return fault(result, error), None


def read_update(
    objects: ObjectStore, request: PhaseRequest, device: str, update: ObjectRef | None
) -> Records:
    """Download and decode a device's update. Raises ProtocolError when it is not what the device
    announced, ObjectMissing when it is absent.
    """
    if update is None:
        raise ProtocolError("malformed", "the reply names no update")
    if update.size > request.size_limit:
        raise ProtocolError("too-large", f"the update claims {update.size} bytes")
    # Never more than the announced size, whatever was uploaded.
    blob, found = fetch(objects, update_key(request.run, request.phase, device), update.size)
    if found != update.digest:
        raise ProtocolError("bad-digest", "the update's digest is not the announced one")
    # A model's bounds also hold for evaluations, which have no need of arrays at all.
    bounds = bounds_of(spec.name for spec in request.specs) if request.specs else Bounds()
    records = decode_records(blob, bounds)
    return records if request.specs is None else _in_models_order(records, request.specs)


def _in_models_order(records: Records, specs: list[ArraySpec]) -> Records:
    """The same arrays in the model's order: a device may send its layers in another."""
    names = [spec.name for spec in specs]
    for key, group in records.arrays.items():
        if list(group) != names and set(group) == set(names):
            records.arrays[key] = {name: group[name] for name in names}
    return records


def fault(of: Target | DeviceResult, error: Exception) -> DeviceResult:
    """The failure of a device whose update met a fault of ours. What a device sends can only be
    refused: anything else that is raised is logged with its type, to be mended.
    """
    target = of if isinstance(of, Target) else Target(of.device, of.node_id, of.message_id)
    kind = type(error).__name__
    event(
        logger,
        "update-not-opened",
        logging.ERROR,
        device=target.device,
        message=target.message_id,
        error=kind,
        reason=printable(str(error)),
    )
    return failure(target, FAULT_CODE, f"the update could not be opened: {kind}")


def overwritten(result: DeviceResult, error: Exception) -> DeviceResult:
    """The failure of a device that replaced its update after the check: its upload URL is valid
    until the phase's deadline.
    """
    reason = f"the update was changed after it had been checked: {error}"
    return msgspec.structs.replace(result, status="error", code="bad-digest", reason=reason)
