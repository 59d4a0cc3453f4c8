"""One run's server from its specification to its outcome, over in-memory devices."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import msgspec
import pytest
from fakes.apps import SERVER, write_app
from fakes.clock import ThreadClock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.run_store import MemoryRunStore
from fakes.run_table import MemoryRunTable
from fakes.runs import DEVICES, GOOD, failing, spec, training_device
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from edge.protocol.messages import Command, Reply
from edge.protocol.records import Records
from edge.training.app_bundle import FlowerApp
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import app_key, arrays_key, champion_key, cohorts_key, model_key, spec_key
from fl_runtime.run.records import Comparison
from fl_runtime.run.scoring import NO_CHAMPION
from fl_runtime.run.state import RunState
from fl_runtime.server.conclusion import tables_of
from fl_runtime.server.journal import read_round
from fl_runtime.server.server import Server, ServerResources


class World:
    """What outlives a server: objects, the run table and the run's history."""

    def __init__(self, app: FlowerApp, devices: dict = GOOD) -> None:
        self.app = app
        self.devices = devices
        self.objects = MemoryObjects()
        self.runs = MemoryRunTable()
        self.store = MemoryRunStore()

    def add(self, run: str = "run-1", **changes: object):
        wanted = {"num_rounds": 2, "metric": "loss", **changes}
        the_spec = spec(run=run, app=self.app.digest(), **wanted)
        cohorts = form_cohorts("f", DEVICES, 0)
        self.objects.put(spec_key(run), msgspec.json.encode(the_spec))
        self.objects.put(cohorts_key(run), msgspec.json.encode(cohorts))
        self.objects.put(app_key(the_spec.app), self.app.bundle())
        self.objects.put(champion_key(run), b"null")
        self.runs.create(RunState(run=run, state="Starting"))
        return the_spec

    @contextlib.contextmanager
    def serve(self, spec, cohorts, epoch):
        """In the place of a CohortHost."""
        clock, fleet = ThreadClock(), MemoryFleet(self.objects, self.devices)
        yield CohortRunner(fleet, fleet, self.objects, clock=clock, sleep=clock.sleep)

    def server(self, run: str = "run-1", task: str = "arn:t", now: float = 0.0) -> Server:
        resources = ServerResources(
            objects=self.objects,
            runs=self.runs,
            host=self,
            store=self.store,
            signer=lambda text: "signed",
            eligible=lambda spec: set(DEVICES[:3]),
            uri=lambda key: f"s3://bucket/{key}",
            task=lambda: task,
            **({"now": lambda: now} if now else {}),
        )
        return Server(run, resources, threading.Event())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(write_app(tmp_path / "plain_app"))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_bundle_that_is_not_the_runs_app_is_never_run(
    world: World, tmp_path: Path, damaged: bool
) -> None:
    the_spec = world.add()
    source = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    other = write_app(tmp_path / "other_app", server=source).bundle()
    world.objects.put(app_key(the_spec.app), other[:-9] if damaged else other)
    with pytest.raises(RunFailed, match="app bundle is") as failed:
        world.server().serve()
    assert failed.value.code == "app-load"
    assert not (tmp_path / "ran").exists()


def test_a_servers_beats_are_seen_until_another_has_taken_the_run_over(world: World) -> None:
    world.add()
    first, second = world.server(task="arn:1", now=10.0), world.server(task="arn:2", now=80.0)
    assert world.runs.get("run-1").silent_for(500.0) == 0.0, "no server has begun"
    first.beat()
    assert world.runs.get("run-1").silent_for(75.0) == 65.0
    first._epoch = world.runs.take_over("run-1")
    second._epoch = world.runs.take_over("run-1")
    second.beat()
    first.beat()
    state = world.runs.get("run-1")
    assert (state.task, state.beat_at) == ("arn:2", 80.0)


def test_a_run_leaves_its_model_its_history_and_its_outcome(world: World) -> None:
    world.add()
    outcome = world.server().serve()
    assert (outcome.run, outcome.rounds, outcome.participants) == ("run-1", 2, 6)
    assert (outcome.metric, outcome.score, outcome.ended) == ("loss", -outcome.value, "-")
    assert (outcome.mlflow_run_id, outcome.mlflow_model_id) == ("mlflow-run-1", "m-1")
    assert outcome.model_data == "s3://bucket/runs/run-1/model/model.tar.gz"
    for name in ("model.safetensors", "model.tar.gz", "evaluation.json", "tables/losses.json"):
        assert model_key("run-1", name) in world.objects.data
    data = world.objects.data[model_key("run-1", "comparison.json")]
    comparison = msgspec.json.decode(data, type=Comparison)
    assert "no earlier version" in comparison.reason
    assert comparison.goal == "minimize"
    assert world.store.artifacts["comparison.json"] == data
    evaluation = world.objects.data[model_key("run-1", "evaluation.json")]
    assert world.store.artifacts["evaluation.json"] == evaluation
    assert world.store.rounds == [1, 2]
    assert read_round(world.objects, "run-1", 1).finished_at > 0
    assert world.store.tags["mledgeops.devices"] == "6"
    params = world.store.params
    assert (params["app.num-server-rounds"], params["strategy"]) == (2, "FedAvg")
    assert (params["strategy.fraction_train"], params["strategy.min_train_nodes"]) == (1.0, 2)
    assert world.store.tables["losses"] == {"step": [1, 2], "loss": [0.5, 0.25]}
    state = world.runs.get("run-1")
    assert (state.state, state.finished_round, state.mlflow_run_id) == (
        "Running",
        2,
        "mlflow-run-1",
    )


def test_a_run_keeps_of_its_checkpoints_and_weights_what_resuming_takes(world: World) -> None:
    world.add(num_rounds=7)
    world.server().serve()
    kept = [key for key in world.objects.data if key.startswith("transient/run-1/")]
    checkpoints = sorted(key.rsplit("/", 1)[1] for key in kept if "/checkpoints/" in key)
    named = world.runs.get("run-1").checkpoint.split(",")
    assert checkpoints == sorted(f"{name}.safetensors" for name in named)
    assert len(checkpoints) == 2
    assert len([key for key in kept if "/arrays/" in key]) <= 3  # the best, the last two


def test_a_server_also_deletes_the_weights_of_the_one_that_it_replaces(world: World) -> None:
    world.add(num_rounds=3)
    world.server().serve()
    the_spec = world.add(num_rounds=7)  # as if the first had died after its third round
    world.objects.put(spec_key("run-1"), msgspec.json.encode(the_spec))
    assert world.server().serve().rounds == 7
    kept = {key for key in world.objects.data if key.startswith("transient/run-1/arrays/")}
    of_the_first = {read_round(world.objects, "run-1", number).model for number in (1, 2, 3)}
    assert kept.isdisjoint(arrays_key("run-1", model) for model in of_the_first)


def test_requirements_limit_the_devices_that_are_asked(world: World) -> None:
    world.add(require={"idle": True})
    assert world.server().serve().participants == 3


def test_a_replaced_server_commits_no_round_and_leaves_the_answer_to_its_successor(
    world: World,
) -> None:
    world.add()
    taken = world.runs.take_over

    def overtaken(run: str) -> int:
        epoch = taken(run)
        taken(run)
        return epoch

    world.runs.take_over = overtaken
    with pytest.raises(RunFailed, match="Another server took the run over") as raised:
        world.server().serve()
    assert raised.value.code == "fenced"
    assert world.runs.get("run-1").finished_round == 0


def test_a_run_continues_another_one_from_its_last_round(world: World) -> None:
    world.add()
    world.server().serve()
    world.runs.update("run-1", state="Succeeded")
    world.add("run-2", resume_from="run-1")
    outcome = world.server("run-2").serve()
    assert outcome.rounds == 2, "both rounds were inherited"
    assert world.runs.get("run-2").finished_round == 0, "none was run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "There is no run run-0 to go on from"),
        ({"state": "Running"}, "has not ended \\(Running\\)"),
        ({"state": "Failed"}, "has no checkpoint that can be read"),
        ({"state": "Failed", "app": "b" * 64}, "was made by another app"),
    ],
)
def test_a_run_that_cannot_be_continued_says_why(world: World, changes: dict, message: str) -> None:
    if changes:
        app = changes.get("app", world.app.digest())
        world.objects.put(spec_key("run-0"), msgspec.json.encode(spec(run="run-0", app=app)))
        world.runs.create(RunState(run="run-0", state=changes["state"]))
    world.add(resume_from="run-0")
    with pytest.raises(RunFailed, match=message):
        world.server().serve()


def test_a_run_is_over_when_mlflow_has_all_of_it(world: World) -> None:
    """The pipeline's next step registers the model from there."""
    world.add()
    set_tag, seen = world.store.set_tag, []

    def slow(run_id: str, key: str, value: str) -> None:
        time.sleep(0.05)
        set_tag(run_id, key, value)

    world.store.set_tag = slow
    get = world.runs.get

    def asked(run: str) -> RunState | None:
        seen.append("mledgeops.outcome" in world.store.tags)
        return get(run)

    world.runs.get = asked
    world.server().serve()
    assert seen[-1], "when it is looked whether the run was stopped, nothing is left to write"


def test_a_model_has_the_value_that_is_reported_and_the_score_of_the_robust_one(
    tmp_path: Path,
) -> None:
    def liar(command: Command, content: Records) -> Records:
        answer = training_device("d0")(command, content)
        if command.kind == "evaluate":
            answer.metrics["metrics"]["loss"] = 1e9
        return answer

    world = World(write_app(tmp_path / "lied_app"), {**GOOD, "d0": liar})
    world.add()
    outcome = world.server().serve()
    assert outcome.value > 1e6, "one of six lies"
    assert outcome.reported_score == -outcome.value
    assert -10 < outcome.score < 0


def test_a_run_that_ends_at_its_target_says_so_in_its_outcome_and_its_tags(world: World) -> None:
    world.add(num_rounds=5, target=1e9)
    outcome = world.server().serve()
    assert (outcome.rounds, outcome.ended) == (1, "the target of 1e+09 was reached in round 1")
    assert world.store.tags["mledgeops.ended_early"] == outcome.ended


def test_a_run_stopped_while_its_model_is_logged_ends_as_stopped(world: World) -> None:
    world.add()
    server = world.server()

    def stop(run_id: str, app: object, model: object) -> str:
        world.runs.update("run-1", state="Stopping")
        return "m-1"

    world.store.log_model = stop
    with pytest.raises(RunFailed, match="stopped while its model was being logged"):
        server.serve()
    assert server.is_stopping()
    assert world.store.ended == ("Stopped", "The pipeline was stopped.")


def test_the_end_is_announced_unless_the_run_is_being_stopped(world: World) -> None:
    world.add()
    world.server().announce_end()
    assert world.runs.get("run-1").state == "Concluding"
    world.runs.update("run-1", state="Stopping")
    world.server().announce_end()
    assert world.runs.get("run-1").state == "Stopping"


def test_a_server_that_was_replaced_does_not_announce_the_end(world: World) -> None:
    world.add()
    server = world.server()
    server.serve()
    world.runs.take_over("run-1")
    server.announce_end()
    assert world.runs.get("run-1").state == "Running"


@pytest.mark.parametrize(
    ("name", "server", "code", "message"),
    [
        (
            "raising",
            SERVER.replace("FedAvg()", "(1 / 0)"),
            "server-app",
            "raised ZeroDivisionError",
        ),
        ("unloadable", "import nothing_of_this_name", "app-load", "nothing_of_this_name"),
    ],
)
def test_an_app_that_gives_no_model_is_the_runs_reason(
    tmp_path: Path, name: str, server: str, code: str, message: str
) -> None:
    world = World(write_app(tmp_path / f"{name}_app", server=server))
    world.add()
    with pytest.raises(RunFailed, match=message) as raised:
        world.server().serve()
    assert raised.value.code == code


QUERY = """
import json
from pathlib import Path
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    for _ in range(2):
        content = RecordDict({"config": ConfigRecord({"column": "age"})})
        replies = list(grid.send_and_receive([Message(content, n, "query") for n in nodes]))
    context.state["counts"] = MetricRecord({"devices": len(replies)})
    Path("plots").mkdir()
    Path("plots/ages.json").write_text(json.dumps({"devices": len(replies)}))
"""


def test_an_app_that_only_asks_ends_as_an_analysis_with_its_tables_and_files(
    tmp_path: Path,
) -> None:
    def device(command: Command, content: Records) -> Records:
        return Records(metrics={"found": {"mean": 40.0}})

    world = World(write_app(tmp_path / "asking_app", server=QUERY), dict.fromkeys(DEVICES, device))
    world.add(metric="")
    outcome = world.server().serve()
    assert (outcome.outcome, outcome.rounds, outcome.model_digest) == ("analysis", 2, "-")
    assert (outcome.metric, outcome.participants) == ("-", 0)
    assert read_round(world.objects, "run-1", 2).start == 0
    assert world.store.rounds == [1, 2]
    assert world.store.tables == {"counts": {"devices": [6]}}
    assert world.store.artifacts == {"files/plots/ages.json": b'{"devices": 6}'}
    assert world.store.models == []
    assert world.store.tags["mledgeops.outcome"] == "analysis"
    assert model_key("run-1", "files/plots/ages.json") in world.objects.data
    assert model_key("run-1", "tables/counts.json") in world.objects.data


def test_a_successor_runs_an_apps_own_loop_anew_and_logs_no_round_twice(tmp_path: Path) -> None:
    def device(command: Command, content: Records) -> Records:
        return Records(metrics={"found": {"mean": 40.0}})

    world = World(write_app(tmp_path / "again_app", server=QUERY), dict.fromkeys(DEVICES, device))
    world.add(metric="")
    for _ in range(2):
        assert world.server().serve().rounds == 2
    assert world.store.rounds == [1, 2]
    assert world.runs.get("run-1").finished_round == 2


def test_a_model_that_nothing_judges_is_said_to_be_not_judged(tmp_path: Path) -> None:
    """No device evaluates, the server does not, and training reports nothing but its examples."""

    def device(command: Command, content: Records) -> Records:
        answer = training_device("d0")(command, content)
        answer.metrics["metrics"] = {"num-examples": 10}
        return answer

    server = SERVER.replace("FedAvg()", "FedAvg(fraction_evaluate=0.0)")
    world = World(write_app(tmp_path / "quiet_app", server=server), dict.fromkeys(DEVICES, device))
    world.add(metric="accuracy")
    outcome = world.server().serve()
    assert (outcome.outcome, outcome.metric, outcome.score) == ("model", "-", NO_CHAMPION)
    (model,) = world.store.models
    assert (model.goal, model.value) == ("minimize", 0.0)
    assert "mledgeops.metric" not in world.store.tags


@pytest.mark.parametrize("metric", ["", "loss"])
def test_without_an_evaluation_training_judges_the_model(tmp_path: Path, metric: str) -> None:
    server = SERVER.replace("FedAvg()", "FedAvg(fraction_evaluate=0.0)")
    world = World(write_app(tmp_path / f"train_{metric or 'any'}", server=server))
    world.add(metric=metric)
    outcome = world.server().serve()
    assert outcome.metric in ("loss", "train_loss")
    assert outcome.reported_score == -outcome.value < 0
    if metric:
        assert outcome.metric == metric


CENTRAL = SERVER.replace(
    "num_rounds=rounds)",
    "num_rounds=rounds, evaluate_fn=lambda n, arrays: MetricRecord("
    "{'accuracy': np.float64(0.5), 'by_class': [np.float64(0.25)]}))",
).replace("ConfigRecord\n", "ConfigRecord, MetricRecord\n", 1)


def test_numpy_scalars_of_the_servers_evaluation_judge_the_model(tmp_path: Path) -> None:
    world = World(write_app(tmp_path / "central_app", server=CENTRAL))
    world.add(metric="accuracy")
    outcome = world.server().serve()
    assert (outcome.metric, outcome.value) == ("accuracy", 0.5)
    assert read_round(world.objects, "run-1", 1).server == {"accuracy": 0.5, "by_class": [0.25]}


@pytest.mark.parametrize(("code", "fails"), [("0", False), ("'no data'", True)])
def test_an_app_that_exits_ends_and_not_its_server(tmp_path: Path, code: str, fails: bool) -> None:
    server = f"{SERVER}    import sys\n    sys.exit({code})\n"
    world = World(write_app(tmp_path / f"exiting_{fails}_app", server=server))
    world.add()
    if fails:
        with pytest.raises(RunFailed, match="ended itself with the code 'no data'"):
            world.server().serve()
    else:
        assert world.server().serve().outcome == "model"


def test_a_run_continues_another_one_that_was_in_its_second_start(tmp_path: Path) -> None:
    twice = SERVER.replace(
        "    FedAvg().start(grid=grid, initial_arrays=initial, num_rounds=rounds)\n",
        "    first = FedAvg().start(grid=grid, initial_arrays=initial, num_rounds=2)\n"
        "    FedAvg().start(grid=grid, initial_arrays=first.arrays, num_rounds=rounds)\n",
    )
    world = World(write_app(tmp_path / "twice_app", server=twice))
    world.add(num_rounds=1)
    assert world.server().serve().rounds == 3
    world.runs.update("run-1", state="Succeeded")
    world.add("run-2", num_rounds=3, resume_from="run-1")
    assert world.server("run-2").serve().rounds == 5
    starts = [read_round(world.objects, "run-2", number).start for number in range(1, 6)]
    assert starts == [1, 1, 2, 2, 2]
    assert world.runs.get("run-2").finished_round == 5


def test_a_fleet_that_fails_is_the_runs_reason(tmp_path: Path) -> None:
    world = World(write_app(tmp_path / "failing_app"), dict.fromkeys(DEVICES, failing("app-error")))
    world.add()
    with pytest.raises(RunFailed, match=r"No device gave a valid update in round 1 \(6 app-error"):
        world.server().serve()


def test_only_columns_of_one_length_are_a_table() -> None:
    state = RecordDict(
        {
            "table": MetricRecord({"step": [1, 2], "loss": [0.5, 0.25]}),
            "uneven": MetricRecord({"step": [1, 2], "loss": [0.5]}),
            "scalars": ConfigRecord({"best": 1.0}),
        }
    )
    assert tables_of(state) == {"table": {"step": [1, 2], "loss": [0.5, 0.25]}}
    row = RecordDict({"best": MetricRecord({"loss": 0.5, "round": 2})})
    assert tables_of(row) == {"best": {"loss": [0.5], "round": [2]}}
    path = RecordDict({"../a/b.c": MetricRecord({"loss": 0.5})})
    assert tables_of(path) == {"___a_b_c": {"loss": [0.5]}}


def failing_evaluation(command: Command, content: Records):
    """A client without an evaluate function: Flower's own words."""
    if command.kind != "evaluate":
        return training_device("d0")(command, content)
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="error",
        code="app-error",
        reason="ValueError: No evaluate function registered with name 'default'",
    )


@pytest.mark.parametrize(
    ("metric", "device", "message"),
    [
        ("losss", None, "no metric 'losss' in round 1; they report .*Did you mean 'loss'"),
        ("f1", None, "no metric 'f1' in round 1; they report loss, train_loss"),
        ("f1", failing_evaluation, "none could evaluate .* round 1; d0: .*No evaluate function"),
    ],
)
def test_a_metric_that_nothing_can_report_ends_the_run_after_its_first_round(
    world: World, metric: str, device: object, message: str
) -> None:
    world.devices = dict.fromkeys(DEVICES, device) if device else GOOD
    world.add(metric=metric, num_rounds=5)
    with pytest.raises(RunFailed, match=message) as failed:
        world.server().serve()
    assert failed.value.code == "metric-missing"
    assert world.runs.get("run-1").finished_round == 1


def test_what_failed_on_devices_is_counted_in_mlflow(world: World) -> None:
    world.devices = dict.fromkeys(DEVICES, failing_evaluation)
    world.add(metric="", num_rounds=3)
    assert world.server().serve().metric != "-", "training judges the model, as before"
    document = msgspec.json.decode(world.store.artifacts["failures.json"])
    (row,) = (dict(zip(document["columns"], row, strict=True)) for row in document["data"])
    assert (row["kind"], row["count"], row["first_round"], row["last_round"]) == (
        "evaluate",
        18,
        1,
        3,
    )
    assert "No evaluate function" in row["reason"]


SELDOM = SERVER.replace("num_rounds=rounds)", "num_rounds=rounds, evaluate_fn=seldom)").replace(
    "initial =",
    """from flwr.app import MetricRecord
    seldom = lambda number, arrays: MetricRecord({"f1": 0.5}) if number == 3 else None
    initial =""",
)
TWICE = SERVER.replace(
    "FedAvg().start(",
    """FedAvg(fraction_evaluate=0.0).start(grid=grid, initial_arrays=initial, num_rounds=1)
    FedAvg().start(""",
)


@pytest.mark.parametrize(
    ("name", "server", "metric"), [("seldom", SELDOM, "f1"), ("twice", TWICE, "lost")]
)
def test_a_metric_that_may_still_come_is_waited_for(
    tmp_path: Path, name: str, server: str, metric: str
) -> None:
    devices = GOOD
    if name == "twice":  # the first start trains something that this metric does not judge

        def second(command: Command, content: Records) -> Records:
            answer = training_device("d0")(command, content)
            if command.kind == "evaluate":
                answer.metrics["metrics"] = {"num-examples": 10, "lost": 0.25}
            return answer

        devices = dict.fromkeys(DEVICES, second)
    world = World(write_app(tmp_path / name, server=server), devices)
    world.add(metric=metric, num_rounds=3)
    assert world.server().serve().metric == metric
    if name == "twice":
        assert world.store.params["strategy.fraction_evaluate"] == 0.0
        assert world.store.params["start-2.strategy.fraction_evaluate"] == 1.0


def test_an_exception_of_the_serverapp_names_its_line(tmp_path: Path) -> None:
    server = SERVER.replace(
        "    initial =", "    raise ValueError('no initial model')\n    initial ="
    )
    line = 1 + server[: server.index("raise ValueError")].count("\n")
    world = World(write_app(tmp_path / "raising", server=server))
    world.add()
    where = f"ValueError at raising/server_app.py:{line} in main: no initial model"
    with pytest.raises(RunFailed, match=where):
        world.server().serve()


EVALUATED_ONCE = SERVER.replace(
    "    FedAvg().start(",
    "    class First(FedAvg):\n"
    "        def configure_evaluate(self, server_round, *given):\n"
    "            asked = super().configure_evaluate(server_round, *given)\n"
    "            return asked if server_round == 1 else []\n"
    "    First().start(",
)


def test_a_model_is_judged_by_the_last_round_that_was_evaluated_also_the_first(
    tmp_path: Path,
) -> None:
    def device(command: Command, content: Records) -> Records:
        answer = training_device("d0")(command, content)
        if command.kind == "train":
            answer.metrics["metrics"] = {"num-examples": 10}
        return answer

    app = write_app(tmp_path / "once_app", server=EVALUATED_ONCE)
    world = World(app, dict.fromkeys(DEVICES, device))
    world.add()
    outcome = world.server().serve()
    assert (outcome.rounds, outcome.metric) == (2, "loss")
    assert outcome.value == read_round(world.objects, "run-1", 1).evaluate["loss"]
