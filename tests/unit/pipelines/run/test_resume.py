"""A resumed run has the options of the run that it continues."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import spec
from support.paths import APPS

from edge.training.app_bundle import AppError, load_app
from fl_runtime.run.keys import app_key, spec_key
from fl_runtime.run.state import RunState
from pipelines.errors import UsageError
from pipelines.run.clients import RunClients
from pipelines.run.resume import options_of, resumption


class Runs:
    def __init__(self, **state: Any) -> None:
        self.state = RunState(run="run-1", **state)

    def get(self, run: str) -> RunState:
        return self.state


def clients(objects: MemoryObjects, **state: Any) -> RunClients:
    parts: Any = {"objects": objects, "runs": Runs(**state), "sagemaker": None}
    return RunClients(**parts)


def test_the_options_are_those_of_the_specification() -> None:
    options = options_of(
        spec(
            run_config={"lr": 0.5, "num-server-rounds": 3},
            strategy_params={"eta": 0.1},
            quorum=2,
            target=0.9,
            require={"idle": True},
            max_devices=7,
        ),
        load_app(APPS / "digits"),
    )
    assert options.settings == {"lr": 0.5, "strategy.eta": 0.1}
    assert (options.quorum, options.target, options.devices) == (2, 0.9, 7)
    assert options.require == {"idle": True}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"state": "Failed"}, "finished no round"),
        ({"state": "Running", "checkpoint": "c"}, "is running: wait for its end"),
        ({"state": "Failed", "checkpoint": "c", "finished_round": 9}, "has finished 9 rounds"),
    ],
)
def test_what_cannot_be_continued_is_refused(state: dict, sentence: str) -> None:
    objects = MemoryObjects()
    objects.put(spec_key("run-1"), msgspec.json.encode(spec(num_rounds=3)))
    with pytest.raises(UsageError, match=sentence), resumption(clients(objects, **state), "run-1"):
        pass


def test_an_unknown_run_is_refused() -> None:
    nothing = clients(MemoryObjects(), state="Failed")
    with pytest.raises(UsageError, match="There is no run run-1"), resumption(nothing, "run-1"):
        pass


def test_the_plan_continues_the_run_with_the_app_that_it_used() -> None:
    app, objects = load_app(APPS / "digits"), MemoryObjects()
    digest = app.digest()
    objects.put(app_key(digest), app.bundle())
    objects.put(
        spec_key("run-1"),
        msgspec.json.encode(spec(app=digest, num_rounds=3, quorum=2, min_devices=4)),
    )
    state = {"state": "Failed", "checkpoint": "c", "finished_round": 2}
    with resumption(clients(objects, **state), "run-1", 5) as plan:
        assert (plan.app_digest, plan.rounds, plan.options.quorum) == (digest, 5, 2)
        assert plan.parameters()["ResumeFrom"] == "run-1"
        assert plan.app.folder.is_dir()
    assert not plan.app.folder.exists()


def test_a_bundle_that_is_not_the_runs_app_is_not_unpacked() -> None:
    app, objects = load_app(APPS / "digits"), MemoryObjects()
    objects.put(app_key("a" * 64), app.bundle())
    objects.put(spec_key("run-1"), msgspec.json.encode(spec(app="a" * 64, num_rounds=3)))
    state = {"state": "Failed", "checkpoint": "c", "finished_round": 2}
    with (
        pytest.raises(AppError, match="is not that of the app aaaa"),
        resumption(clients(objects, **state), "run-1", 5),
    ):
        pass
