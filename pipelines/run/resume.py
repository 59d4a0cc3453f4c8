"""Continues a run that has ended: the same app and options, from its last finished round."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge.training.app_bundle import FlowerApp, unpack
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import app_key, spec_key
from fl_runtime.run.spec import RunSpec, decode_spec
from fl_runtime.run.state import TERMINAL_STATES
from pipelines.errors import UsageError
from pipelines.run.clients import RunClients
from pipelines.run.option_table import STRATEGY_PREFIX, TABLE, RunOptions
from pipelines.run.plan import RunPlan, plan


@contextlib.contextmanager
def resumption(clients: RunClients, run: str, rounds: int = 0) -> Iterator[RunPlan]:
    """The plan of the run that continues ``run``, up to ``rounds`` in all (0: as many as it was to
    have). Raises UsageError.

    The app's folder, unpacked from what the run used, lasts as long as the block.
    """
    spec = spec_of_run(clients, run)
    state = clients.runs.get(run)
    if state is None or not state.checkpoint:
        raise UsageError(
            f"The run {run} finished no round, so there is nothing to go on from: "
            "start it anew with `mledgeops run`."
        )
    if state.state not in TERMINAL_STATES:
        raise UsageError(
            f"The run {run} is {state.state.lower()}: wait for its end, "
            f"or stop it with `mledgeops stop {run}`."
        )
    wanted = rounds or spec.num_rounds
    if 0 < wanted <= state.finished_round:
        raise UsageError(
            f"The run {run} has finished {state.finished_round} rounds: give --rounds above that."
        )
    with tempfile.TemporaryDirectory() as folder:
        app = unpack(clients.objects.get(app_key(spec.app)), Path(folder) / "app", spec.app)
        made = plan(app, replace(options_of(spec, app), rounds=wanted, resume_from=run))
        yield replace(made, app_digest=spec.app)


def options_of(spec: RunSpec, app: FlowerApp) -> RunOptions:
    """The options that a run was started with. Its minimum score is not among them: the pipeline
    keeps that to itself.
    """
    values = {
        entry.name: getattr(spec, entry.parameters[0].argument)
        for entry in TABLE
        if entry.parameters[0].argument
    }
    config = {key: value for key, value in spec.run_config.items() if key != app.rounds_key}
    strategy = {f"{STRATEGY_PREFIX}{key}": value for key, value in spec.strategy_params.items()}
    values["devices"] = spec.max_devices or spec.min_devices
    values["settings"] = {**config, **strategy}
    return RunOptions(**values)


def spec_of_run(clients: RunClients, run: str) -> RunSpec:
    """What a run was asked for. Raises UsageError: there is none, or another version made it."""
    try:
        return decode_spec(clients.objects.get(spec_key(run)))
    except ObjectMissing as error:
        raise UsageError(f"There is no run {run}: `mledgeops runs` lists them.") from error
    except RunFailed as error:
        raise UsageError(
            f"The run {run} was made by another version and cannot be continued: {error}"
        ) from error
