"""A run that goes on where another ended: the same app and settings, from its last finished round."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge.training.app_bundle import unpack
from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import app_key, spec_key
from fl_runtime.run.ports import ObjectMissing
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import TERMINAL, RunTable
from pipelines.deployment import Deployment
from pipelines.errors import UsageError
from pipelines.run.options import ROUNDS_KEY, STRATEGY_PREFIX, RunOptions, RunPlan, plan


@contextlib.contextmanager
def resumption(deployment: Deployment, run: str, rounds: int = 0) -> Iterator[RunPlan]:
    """The plan of the run that continues ``run``, up to ``rounds`` in all (0: as many as it was to
    have). Raises UsageError.

    The app's folder, unpacked from what the run used, lasts as long as the block.
    """
    objects = S3Objects(client("s3"), deployment.bucket)
    try:
        spec = decode_spec(objects.get(spec_key(run)))
    except ObjectMissing as error:
        raise UsageError(f"There is no run {run}: `mledgeops runs` lists them.") from error
    except RunFailed as error:
        raise UsageError(
            f"The run {run} was made by another version and cannot be continued: {error}"
        ) from error
    state = RunTable(client("dynamodb"), deployment.runs_table).get(run)
    if state is None or not state.checkpoint:
        raise UsageError(
            f"The run {run} finished no round, so there is nothing to go on from: start it anew with `mledgeops run`."
        )
    if state.state not in TERMINAL:
        raise UsageError(
            f"The run {run} is {state.state.lower()}: wait for its end, or stop it with `mledgeops stop {run}`."
        )
    wanted = rounds or spec.num_rounds
    if wanted <= state.finished_round:
        raise UsageError(
            f"The run {run} has finished {state.finished_round} rounds: give --rounds above that."
        )
    with tempfile.TemporaryDirectory() as folder:
        app = unpack(objects.get(app_key(spec.app)), Path(folder) / "app")
        made = plan(app, replace(_options(spec), rounds=wanted, resume_from=run))
        yield replace(made, app_digest=spec.app)


def _options(spec: RunSpec) -> RunOptions:
    """What the run was asked for."""
    config = {key: value for key, value in spec.run_config.items() if key != ROUNDS_KEY}
    strategy = {f"{STRATEGY_PREFIX}{key}": value for key, value in spec.strategy_params.items()}
    return RunOptions(
        devices=spec.max_devices or spec.min_devices,
        devices_per_proxy=spec.devices_per_proxy,
        strategy=spec.strategy,
        settings={**config, **strategy},
        metric=spec.metric,
        goal=spec.goal,
        fleet=spec.fleet,
        seed=spec.seed,
        phase_seconds=spec.phase_seconds,
        deadline_seconds=spec.deadline_seconds,
        quorum=spec.quorum,
        quorum_fraction=spec.quorum_fraction,
        over_selection=spec.over_selection,
        selection=spec.selection,
        require=spec.require,
        target=spec.target,
        max_seconds=spec.max_seconds,
        max_cost=spec.max_cost,
        experiment=spec.experiment,
    )
