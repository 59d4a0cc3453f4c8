"""The specification of a run, as the pipeline asked for it. Stored in S3 (``run.json``)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ConfigValue, Goal
from edge.protocol.names import Digest, Name
from edge.protocol.text import parse_json
from fl_runtime.run.errors import RunFailed


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One federated run. Times are in seconds, costs in USD."""

    run: Name
    fleet: Name
    app: Digest
    app_name: str
    num_rounds: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    """The app's setting for its rounds gets this value; 0: it keeps its own."""
    min_devices: Annotated[int, msgspec.Meta(ge=1)]
    max_devices: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: all eligible devices."""
    devices_per_proxy: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    """0: the server hosts the cohorts itself."""
    strategy: str = ""
    """Name of a strategy of Flower's; empty: the app's own."""
    strategy_params: dict[str, ConfigValue] = {}
    run_config: dict[str, ConfigValue] = {}
    metric: str = ""
    """The evaluate metric that the model is judged by; empty: chosen from those reported."""
    goal: Goal | Literal[""] = ""
    seed: int = 0
    phase_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    """Time that devices have for one train or evaluate phase."""
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 86_400.0
    """Longest wait for enough devices."""
    quorum: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Fewest valid updates for a round to count."""
    quorum_fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """The same as a share of the devices that the round samples."""
    over_selection: Annotated[float, msgspec.Meta(ge=1, le=10)] = 1.0
    """Over-selection factor: this many times the sampled devices are asked to train, if there are
    enough; the first replies count. 1: exactly those that the strategy samples, as in Flower.
    """
    weight_limit: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    """An update with more examples than this many times the phase's median, or the device's own
    earlier counts, is refused; 0: none is.
    """
    checks: Literal["", "strict", "free"] = ""
    """What replies are held against: the model's layout, or bounds alone; empty: as the strategy
    aggregates them.
    """
    selection: Annotated[
        str, msgspec.Meta(pattern="^(|random|least-seen|stratified:[A-Za-z0-9_-]{1,40})$")
    ] = ""
    """How a round's devices are sampled; empty: as the strategy does."""
    require: dict[str, ConfigValue] = {}
    """What a device's heartbeat must say: see :mod:`fl_runtime.run.eligibility`."""
    target: float | None = None
    """The run ends early once the metric reaches this."""
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget for all rounds together; 0: none."""
    max_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget in USD, as estimated by :mod:`fl_runtime.run.cost`; 0: none."""
    resume_from: Annotated[str, msgspec.Meta(pattern="^(|[A-Za-z0-9][A-Za-z0-9_-]{0,62})$")] = ""
    """The run whose last finished round this one continues from."""
    experiment: str = "mledgeops"
    pipeline_execution_arn: str = ""
    created_at: float = 0.0


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The model that the fleet uses when the run begins (``champion.json``)."""

    model_version: str
    digest: str
    app: str
    key: str
    """S3 key of its weights."""


def decode_spec(data: bytes) -> RunSpec:
    """Parse a specification. Raises RunFailed, naming the field at fault."""
    # Bounds are checked here too: the pipeline may have been started by hand, in Studio.
    try:
        parsed: RunSpec = parse_json(data, RunSpec, "The run's specification")
    except ProtocolError as error:
        raise RunFailed("bad-run", f"{error}.") from error
    return parsed
