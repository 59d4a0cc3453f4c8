"""What a run is to do, as the pipeline asked for it, and who takes part. Stored in S3, read by all."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.protocol.messages import ConfigValue, Digest, Goal, Name
from fl_runtime.run.errors import RunFailed


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One federated run. Times are in seconds."""

    run: Name
    fleet: Name
    app: Digest
    app_name: str
    num_rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    min_devices: Annotated[int, msgspec.Meta(ge=1)]
    max_devices: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: all eligible devices."""
    devices_per_proxy: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    """0: the server hosts the cohorts itself."""
    strategy: str = ""
    """A stock Flower strategy's name; empty: the app's own choice."""
    strategy_params: dict[str, ConfigValue] = {}
    run_config: dict[str, ConfigValue] = {}
    metric: str = ""
    """The evaluate metric the model is judged by; empty: chosen from what the devices report."""
    goal: Goal | Literal[""] = ""
    seed: int = 0
    phase_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    """How long the devices have for one train or evaluate phase."""
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 86_400.0
    """How long the run may wait for enough devices."""
    quorum: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Valid updates that a round needs, at least."""
    quorum_fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """The same as a share of the devices that the round wants."""
    over_selection: Annotated[float, msgspec.Meta(ge=1, le=10)] = 1.3
    """So many times the wanted devices are asked to train, where there are more; the first answers
    count.
    """
    selection: Annotated[
        str, msgspec.Meta(pattern="^(|random|least-seen|stratified:[A-Za-z0-9_-]{1,40})$")
    ] = ""
    """How a round's devices are chosen; empty: as the strategy does."""
    require: dict[str, ConfigValue] = {}
    """What a device's heartbeat must say for it to be asked, see :mod:`fl_runtime.run.eligibility`.
    """
    target: float | None = None
    """The run ends early once the metric has reached this."""
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget for all rounds together; 0: none."""
    max_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Budget in USD, as estimated by :mod:`fl_runtime.run.cost`; 0: none."""
    resume_from: Annotated[str, msgspec.Meta(pattern="^(|[A-Za-z0-9][A-Za-z0-9_-]{0,62})$")] = ""
    """The run whose last finished round this one goes on from."""
    experiment: str = "mledgeops"
    pipeline_execution_arn: str = ""
    created_at: float = 0.0


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The model that the run's fleet uses when the run begins (``champion.json``)."""

    model_version: str
    digest: str
    app: str
    key: str
    """S3 key of its weights."""


def decode_spec(data: bytes) -> RunSpec:
    """Parse a specification; raises RunFailed that names the field at fault."""
    try:
        return msgspec.json.decode(data, type=RunSpec)
    except msgspec.DecodeError as error:
        raise RunFailed("bad-run", f"The run's specification is malformed: {error}.") from error
