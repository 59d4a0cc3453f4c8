"""What a notebook is given: examples that hold, clear refusals, tables, small HTML."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.objects import MemoryObjects
from fakes.runs import record
from support.paths import APPS

from edge.errors import MLEdgeOpsError
from edge.training.app_bundle import load_app
from fl_runtime.run.keys import app_key, round_key, spec_key
from fl_runtime.run.records import DeviceRow
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunState
from pipelines.deployment import Deployment
from pipelines.desk import Desk
from pipelines.desk.access import local_session
from pipelines.desk.desk import Desk as DeskOf04
from pipelines.desk.notebook.compare import compared
from pipelines.desk.notebook.connect import connect
from pipelines.desk.notebook.desk import CloudDesk, planned
from pipelines.desk.notebook.execution import Execution, executed
from pipelines.desk.notebook.frames import devices_frame
from pipelines.desk.notebook.model import RegisteredModel, address_of
from pipelines.desk.notebook.open_door import OpenDoor
from pipelines.desk.notebook.run import attached
from pipelines.desk.notebook.run_view import ENDED
from pipelines.desk.notebook.show import FramedPage, plot_rounds
from pipelines.desk.notebook.start import start
from pipelines.desk.notebook.whereabouts import Handle, Whereabouts
from pipelines.desk.run_logs import follow_lines, parse_line
from pipelines.desk.tickets import tickets_of
from pipelines.desk.turns import run_on
from pipelines.errors import UsageError
from pipelines.local.hosting.tickets import Tickets
from pipelines.run.clients import RunClients
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner
from registry.model_version import Version

RUN, ARN = "run-Tok1234567", "arn:aws:sagemaker:r:1:pipeline/mine/execution/1"
SPEC = RunSpec(
    run=RUN,
    fleet="lab",
    app="0" * 64,
    app_name="digits",
    num_rounds=2,
    min_devices=3,
    pipeline_execution_arn=ARN,
    created_at=100.0,
)


@pytest.mark.parametrize(
    "module", ["desk.notebook.connect", "desk.notebook.frames", "desk.notebook.show", "run.option"]
)
def test_the_examples_of_docstrings_hold(module: str) -> None:
    done = doctest.testmod(
        importlib.import_module(f"pipelines.{module}"), optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert done.attempted
    assert not done.failed


def test_importing_what_notebooks_import_loads_nothing_large() -> None:
    code = (
        "import sys; from pipelines import connect; "
        "print([m for m in ('boto3', 'mlflow', 'pandas', 'flwr', 'sagemaker') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Objects(MemoryObjects):
    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))


class SageMaker:
    """One execution, and what was asked."""

    def __init__(self, status: str = "Executing") -> None:
        self.status = status
        self.asked: list[str] = []

    def describe_pipeline_execution(self, PipelineExecutionArn: str) -> dict[str, Any]:
        return {"PipelineExecutionStatus": self.status, "FailureReason": "too few devices"}

    def list_pipeline_execution_steps(self, PipelineExecutionArn: str, **_: Any) -> dict[str, Any]:
        return {"PipelineExecutionSteps": []}

    def stop_pipeline_execution(self, **_: str) -> None:
        self.status = "Stopped"

    def update_pipeline(self, PipelineName: str, PipelineDefinition: str, RoleArn: str) -> None:
        self.asked.append(PipelineName)

    def start_pipeline_execution(
        self, PipelineName: str, PipelineParameters: list
    ) -> dict[str, Any]:
        return {"PipelineExecutionArn": ARN}


class Runs:
    def __init__(self, state: str) -> None:
        self.item = RunState(run=RUN, state=state, pipeline_execution_arn=ARN)  # type: ignore[arg-type]

    def get(self, run: str) -> RunState:
        return self.item

    def under_way(self) -> list[RunState]:
        return [self.item]


def door(tmp_path: Path, state: str = "Running", status: str = "Executing") -> Any:
    """A door to a cloud with one run, of which one round has finished."""
    objects, deployment = Objects(), Deployment(account="1", region="us-east-1")
    objects.put(spec_key(RUN), msgspec.json.encode(SPEC))
    objects.put(round_key(RUN, 1), msgspec.json.encode(record(1, accuracy=0.5)))
    sagemaker, runs = SageMaker(status), Runs(state)
    clients = RunClients(objects=objects, runs=runs, sagemaker=sagemaker)  # type: ignore[arg-type]
    access = SimpleNamespace(
        objects=objects,
        run_clients=clients,
        runner=Runner(deployment, clients),
        cloud=SimpleNamespace(deployment=deployment),
        client=lambda _: sagemaker,
        is_local=True,
        mlflow_uri="sqlite:///mlflow.db",
    )
    return SimpleNamespace(open=lambda: access, stay=lambda: access, home=tmp_path)


def test_a_run_is_found_again_by_its_id_alone(tmp_path: Path) -> None:
    run = attached(door(tmp_path), RUN)
    assert (run.id, run.status, run.error) == (RUN, "Running", "")
    assert run.rounds["evaluate.accuracy"].to_dict() == {1: 0.5}
    assert run.model is None
    assert run.stop().status == "Stopped"


def test_a_run_that_failed_says_why(tmp_path: Path) -> None:
    run = attached(door(tmp_path, "Failed", "Failed"), RUN)
    assert (run.status, run.error) == ("Failed", "too few devices")
    assert "too few devices" in run._repr_html_()


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    desk = CloudDesk(door(tmp_path))
    for name in ("run-other", "queued-0"):
        with pytest.raises(UsageError, match="run"):
            desk.attach(name)
    with pytest.raises(UsageError, match="is not a run's id"):
        desk.attach("../x")


def test_a_queued_run_has_a_name_and_can_be_taken_out(tmp_path: Path) -> None:
    parameters = {"MinDevices": 3, "AppName": "digits"}
    ticket = Tickets(tmp_path / "queue").add("p", parameters, "lab")
    run = attached(door(tmp_path), ticket.name)
    assert (run.id, run.status, run.error) == (ticket.name, "Queued", "")
    with pytest.raises(UsageError, match="has not begun"):
        run.logs()
    run.stop()
    assert (run.status, run.error) == ("Failed", "It was taken out of the queue.")
    with pytest.raises(UsageError, match="taken out"):
        run.wait()


def test_a_run_is_queued_on_a_local_cloud_only(tmp_path: Path) -> None:
    way, wanted = door(tmp_path), planned(APPS / "digits", {"fleet": "lab"}, on_aws=False)
    run = start(way, wanted, queue=True, how="")
    assert [ticket.name for ticket in tickets_of(way).waiting()] == [run.id]
    way.home = None
    with pytest.raises(UsageError, match="on a local cloud only"):
        start(way, wanted, queue=True, how="")


def test_a_run_whose_pipeline_has_not_come_to_it_has_no_id_yet(tmp_path: Path) -> None:
    handle = Handle(app="digits", devices=3, begun_at=0.0, execution=ARN)
    place = Whereabouts(door(tmp_path), handle)
    assert place.now().run == ""
    assert place.records() == []
    assert "Running" not in ENDED


def test_a_models_address_needs_no_environment() -> None:
    version: Any = SimpleNamespace(name="digits", version="1", model_version="digits/1")

    def client(source: str) -> Any:
        model = SimpleNamespace(artifact_location="file:///mlartifacts/m-1")
        return SimpleNamespace(
            get_model_version=lambda *_: SimpleNamespace(source=source),
            get_logged_model=lambda name: model if name == "m-1" else None,
        )

    assert address_of(version, client("models:/m-1")) == "file:///mlartifacts/m-1"
    assert address_of(version, client("s3://b/k")) == "s3://b/k"
    with pytest.raises(UsageError, match="no model in MLflow"):
        address_of(version, client(""))


def test_a_model_shows_what_it_is(tmp_path: Path) -> None:
    way = door(tmp_path)
    version = Version(
        name="digits",
        version="1",
        run=RUN,
        mlflow_run_id="m",
        model_package_arn="arn:package/digits/1",
        approval="PendingManualApproval",
        score=None,
        model_digest="d",
        champion=False,
        created_at=0.0,
    )
    way.open().registry = SimpleNamespace(mlflow=SimpleNamespace(versions=lambda: [version]))
    model = RegisteredModel(way, "1")
    assert (model.name, model.approval) == ("digits/1", "PendingManualApproval")
    assert "arn:package/digits/1" in model._repr_html_()
    with pytest.raises(UsageError, match="without a card"):
        model.card()


def test_a_fleet_is_busy_while_a_pipeline_of_it_runs(tmp_path: Path) -> None:
    clients = door(tmp_path).open().run_clients
    assert run_on(clients, "lab") == RUN
    assert run_on(clients, "plant") == ""
    left_behind = door(tmp_path, status="Failed").open().run_clients
    assert run_on(left_behind, "lab") == ""


def test_a_second_run_on_a_fleet_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"under way on fleet lab \(run-Tok.*queue=True"):
        CloudDesk(door(tmp_path)).run(APPS / "digits", fleet="lab", wait=False)


def test_a_desk_names_what_leads_other_programs_to_its_cloud(tmp_path: Path) -> None:
    desk = CloudDesk(door(tmp_path))
    assert isinstance(desk, OpenDoor)
    assert desk.environment["MLFLOW_TRACKING_URI"] == "sqlite:///mlflow.db"
    assert desk.environment["MLEDGEOPS_BUCKET"] == desk.deployment.bucket


def test_the_desk_of_0_4_is_still_there() -> None:
    assert Desk is DeskOf04
    report = RunReport(tables={"curve": {"x": [1, 2], "y": [3, 4]}})
    assert list(Desk.tables(None, report)["curve"].columns) == ["x", "y"]  # type: ignore[arg-type]


def test_a_misspelt_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'devices_per_proxy'"):
        planned(APPS / "digits", {"devices_per_prox": 1}, on_aws=False)
    assert planned(APPS / "digits", {}, on_aws=True).options.deadline_seconds == 86_400


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"cloud": "moon"}, "no cloud 'moon'"), ({"cloud": "aws", "home": "x"}, "leave it out")],
)
def test_a_cloud_that_there_is_not_is_refused(arguments: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        connect(**arguments)  # type: ignore[arg-type]


def test_aws_without_a_region_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLEDGEOPS_CLOUD", "aws")
    with pytest.raises(MLEdgeOpsError, match="No AWS region is set"):
        connect()


def test_clients_of_a_local_cloud_take_nothing_from_the_users_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_PROFILE": "none-such",
        "AWS_CONFIG_FILE": "/none",
        "AWS_SESSION_TOKEN": "mine",
        "AWS_ENDPOINT_URL": "http://elsewhere",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    there = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_SAGEMAKER": "http://127.0.0.1:2",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    session = local_session(SimpleNamespace(environment=lambda: there))  # type: ignore[arg-type]
    make = session.client
    assert session.resource("s3").meta.client.meta.endpoint_url == "http://127.0.0.1:1"
    queue, sagemaker = make("sqs"), make("sagemaker")
    assert queue.meta.endpoint_url == "http://127.0.0.1:1"
    assert sagemaker.meta.endpoint_url == "http://127.0.0.1:2"
    assert queue.meta.region_name == "us-east-1"
    assert queue._request_signer._credentials.token is None
    assert dict(os.environ) == before


def test_devices_are_told_with_their_latest_refusal() -> None:
    def row(device: str, status: str, code: str = "", **more: Any) -> DeviceRow:
        values = dict.fromkeys(("seconds_fetch", "seconds_work", "seconds_upload"), 0)
        return DeviceRow(
            round=1,
            phase="p",
            kind="train",
            device=device,
            status=status,
            code=code,
            reason="out of memory" if code else "",
            digest="",
            bytes_up=10,
            bytes_down=20,
            metrics={},
            **values,
            **more,
        )

    rows = [row("a", "ok", examples=5.0), row("b", "error", "app-error"), row("a", "ok")]
    found = devices_frame([msgspec.structs.replace(record(1, accuracy=0.5), devices=rows)])
    assert found.loc["a", ["answers", "failures", "examples", "bytes_up"]].tolist() == [2, 0, 5, 20]
    assert found.loc["b", "reason"] == "app-error: out of memory"
    assert devices_frame([]).empty


def test_a_plot_is_a_picture_and_says_when_there_is_none() -> None:
    records = [record(1, accuracy=0.5), record(2, accuracy=0.7)]
    assert plot_rounds(records, "accuracy")._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(UsageError, match="No finished round has the metric 'loss'"):
        plot_rounds(records, "loss")
    with pytest.raises(UsageError, match="any metric"):
        plot_rounds([], "")


def test_what_a_page_says_stays_in_its_frame() -> None:
    assert "<script>" not in FramedPage("<script>alert(1)</script>")._repr_html_()


def test_log_lines_are_told_once_each_as_they_come() -> None:
    lines = [parse_line("server", f'{{"time": {n}, "event": "e{n}"}}') for n in range(3)]
    reads = iter([lines[:1], lines[:2], lines])
    ends = iter([False, False, True])
    told = follow_lines(lambda: next(reads), lambda: next(ends), lambda _: None)
    assert [line.message for line in told] == ["e0", "e1", "e2"]


class Mlflow:
    """Two runs that differ in their seed."""

    def search_experiments(self) -> list[Any]:
        return [SimpleNamespace(experiment_id="0")]

    def search_runs(self, experiments: list[str], query: str, max_results: int) -> list[Any]:
        name = query.split("'")[1]
        if name not in ("run-a", "run-b"):
            return []
        data = SimpleNamespace(
            tags={"mledgeops.app": "digits", "mledgeops.status": "Succeeded"},
            params={"seed": name[-1], "strategy": "FedAvg"},
            metrics={"evaluate.accuracy": 0.9, "train.loss": 1.0},
        )
        return [SimpleNamespace(data=data)]


def test_runs_are_compared_by_what_differs() -> None:
    found = compared(Mlflow(), ["run-a", "run-b"])
    assert list(found.index) == ["app", "status", "seed", "evaluate.accuracy"]
    assert found.loc["seed"].tolist() == ["a", "b"]
    with pytest.raises(UsageError, match="no run 'run-c'"):
        compared(Mlflow(), ["run-a", "run-c"])
    with pytest.raises(UsageError, match="at least two"):
        compared(Mlflow(), ["run-a"])


def test_a_pipeline_is_published_with_the_apps_of_its_steps(tmp_path: Path) -> None:
    way, app = door(tmp_path), load_app(APPS / "digits")
    step = SimpleNamespace(app=app)
    condition = SimpleNamespace(if_steps=[step], else_steps=[])
    mine = SimpleNamespace(name="mine", steps=[condition], definition=lambda: "{}")
    execution = executed(way, mine, "", {"Rounds": 3})
    assert isinstance(execution, Execution)
    assert app_key(app.digest()) in way.open().objects.data
    assert way.open().run_clients.sagemaker.asked == ["mine"]
    assert executed(way, {"Steps": []}, "other", {}).arn == ARN
    for pipeline, text in (({"Steps": []}, "give name="), (7, "int is no pipeline")):
        with pytest.raises(UsageError, match=text):
            executed(way, pipeline, "", {})
