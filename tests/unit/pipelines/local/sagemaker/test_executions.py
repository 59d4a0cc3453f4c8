"""Executions on disk, callbacks by token, and the API's actions on both."""

from __future__ import annotations

import io
import json
import time
import types
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.pipelines import engine_on

from pipelines.local.sagemaker.execution_actions import ACTIONS, ExecutionActions
from pipelines.local.sagemaker.executions import Callbacks, ExecutionFiles, PipelineExecution
from pipelines.local.sagemaker.journal import Journal
from pipelines.local.sagemaker.moto_actions import invalid
from pipelines.local.sagemaker.packages import PackageActions, approval_event

PREFIX = "arn:aws:sagemaker:r:a"
ANN = "arn:aws:iam::1:user/ann"
DEFINITION = {
    "Parameters": [{"Name": "N", "Type": "Integer", "DefaultValue": 1}],
    "Steps": [{"Name": "Low", "Type": "Fail", "Arguments": {"ErrorMessage": "too low"}}],
}


def test_an_execution_that_was_under_way_has_failed_with_its_cloud(tmp_path: Path) -> None:
    files = ExecutionFiles(tmp_path / "folder")
    ended = PipelineExecution(f"{PREFIX}/1", "p", {}, {}, status="Succeeded")
    cut = PipelineExecution(f"{PREFIX}/2", "p", {}, {}, status="Stopping")
    files.save(ended)
    files.save(cut)
    assert files.under_way() == [cut.arn]
    assert ExecutionFiles(tmp_path / "nothing").under_way() == []
    found = ExecutionFiles(tmp_path / "folder").load()
    assert found[ended.arn].status == "Succeeded"
    assert (found[cut.arn].status, found[cut.arn].reason) == (
        "Failed",
        "The local cloud ended while this ran.",
    )
    assert [file.suffix for file in (tmp_path / "folder").iterdir()] == [".json", ".json"]
    assert ExecutionFiles(tmp_path / "nothing").load() == {}


def test_a_callback_is_answered_once_by_its_token() -> None:
    callbacks = Callbacks()
    callback = callbacks.add("token", "execution")
    assert callbacks.execution_of("token") == "execution"
    assert callbacks.execution_of("other") is None
    assert not callbacks.answer("other", {}, None)
    assert callbacks.answer("token", {"a": "1"}, None)
    assert not callbacks.answer("token", {"a": "2"}, None)
    assert callback.outputs == {"a": "1"}


class Backend:
    """What moto gives an action."""

    def describe_pipeline(self, name: str) -> dict:
        assert name == "p"
        return {"PipelineDefinition": json.dumps(DEFINITION)}


def request(**params: Any) -> Any:
    return types.SimpleNamespace(params=params, sagemaker_backend=Backend())


@pytest.fixture
def actions(tmp_path: Path) -> ExecutionActions:
    made = ExecutionActions()
    made.engine, _ = engine_on(tmp_path)
    return made


def ended(actions: ExecutionActions, arn: str) -> dict:
    for _ in range(200):
        described = actions.describe_pipeline_execution(request(PipelineExecutionArn=arn))
        if described["PipelineExecutionStatus"] != "Executing":
            return described
        time.sleep(0.01)
    raise AssertionError("it did not end")


def test_the_api_starts_describes_and_lists_executions(actions: ExecutionActions) -> None:
    given = [{"Name": "N", "Value": "7"}]
    started = actions.start_pipeline_execution(
        request(PipelineName="arn:x/p", PipelineParameters=given)
    )
    arn = started["PipelineExecutionArn"]
    assert ended(actions, arn)["FailureReason"] == "too low"
    by_arn = request(PipelineExecutionArn=arn)
    steps = actions.list_pipeline_execution_steps(by_arn)["PipelineExecutionSteps"]
    assert [(step["StepName"], step["StepStatus"]) for step in steps] == [("Low", "Failed")]
    parameters = actions.list_pipeline_parameters_for_execution(by_arn)["PipelineParameters"]
    assert parameters == given
    listed = actions.list_pipeline_executions(request(PipelineName="p"))
    assert [e["PipelineExecutionArn"] for e in listed["PipelineExecutionSummaries"]] == [arn]


def test_the_api_refuses_what_it_does_not_know(actions: ExecutionActions) -> None:
    unknown = [{"Name": "Nope", "Value": "1"}]
    for act, params in (
        (actions.describe_pipeline_execution, {"PipelineExecutionArn": "arn:none"}),
        (actions.start_pipeline_execution, {"PipelineName": "p", "PipelineParameters": unknown}),
        (actions.send_pipeline_execution_step_success, {"CallbackToken": "none"}),
    ):
        with pytest.raises(Exception, match=r"There is no|Unknown parameters|token is unknown"):
            act(request(**params))
    with pytest.raises(Exception, match="is starting"):
        ExecutionActions().list_pipeline_executions(request(PipelineName="p"))
    assert len(ACTIONS) == 9


class Recorder:
    """A SageMaker client that records calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **params: self.calls.append((name, params))


def test_after_a_full_disk_the_journal_lacks_nothing(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.symlink_to("/dev/full")
    actions = PackageActions(Journal(file), lambda _: ANN)
    create = actions.journalled("create_pipeline", lambda _: None)
    response = types.SimpleNamespace(params={"PipelineName": "p"})
    with pytest.raises(invalid("").__class__, match="No space left"):
        create(response)
    file.unlink()
    actions.journalled("update_pipeline", lambda _: None)(response)
    lines = [json.loads(line)["action"] for line in file.read_text().splitlines()]
    assert lines == ["create_pipeline", "update_pipeline"]


def test_a_cut_line_and_a_refused_call_of_the_journal_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b'{"action": "update_pipel')
    journal = Journal(file)
    journal.write("update_pipeline", {"PipelineName": "lost"}, ANN)
    journal.write("create_pipeline", {"PipelineName": "p"}, ANN)
    done = []

    class SageMaker:
        def update_pipeline(self, PipelineName: str) -> None:
            raise ClientError({"Error": {"Code": "500", "Message": "<!doctype html>"}}, "Update")

        def create_pipeline(self, PipelineName: str) -> None:
            done.append(PipelineName)

    journal.replay(SageMaker())
    assert done == ["p"]
    assert not journal.replaying


def test_an_execution_that_cannot_be_kept_is_answered_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "executions").write_text("in the way of the folder")
    actions = ExecutionActions()
    actions.engine, _ = engine_on(tmp_path)
    response = types.SimpleNamespace(params={"PipelineName": "p"}, sagemaker_backend=Backend())
    with pytest.raises(invalid("").__class__, match="cannot write to its home folder"):
        actions.start_pipeline_execution(response)


def test_the_journal_is_replayed_in_order_and_not_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("create_pipeline", {"PipelineName": "p", "Tags": None}, ANN)
    journal.write("delete_pipeline", {"PipelineName": "p"}, ANN)
    again, recorder = Journal(tmp_path / "journal.jsonl"), Recorder()
    again.replay(recorder)
    assert recorder.calls == [
        ("create_pipeline", {"PipelineName": "p"}),
        ("delete_pipeline", {"PipelineName": "p"}),
    ]
    again.replaying = True
    again.write("create_pipeline", {}, ANN)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2
    Journal(tmp_path / "none").replay(recorder)


def test_who_changed_a_package_survives_the_clouds_restart(tmp_path: Path) -> None:
    backend, params = Packages(), {"ModelPackageArn": f"{PREFIX}:model-package/g/1"}
    changed = types.SimpleNamespace(params=dict(params), sagemaker_backend=backend)
    first = PackageActions(Journal(tmp_path / "journal"), lambda _: ANN)
    first.journalled("update_model_package", lambda _: None)(changed)
    journal = Journal(tmp_path / "journal")
    second = PackageActions(journal, lambda _: "the daemon that repeats the call")
    update = second.journalled("update_model_package", lambda _: None)

    def repeated(**given: Any) -> None:
        update(types.SimpleNamespace(params=given, sagemaker_backend=backend))

    journal.replay(types.SimpleNamespace(update_model_package=repeated))
    described = types.SimpleNamespace(result={"ModelPackageArn": backend.package.arn})
    found = second.described(lambda _: described)(None).result
    assert found["LastModifiedBy"] == {"IamIdentity": {"Arn": ANN}}


class Packages:
    """moto's backend with one package."""

    def __init__(self) -> None:
        self.package = types.SimpleNamespace(
            arn=f"{PREFIX}:model-package/g/1",
            model_package_group_name="g",
            model_package_version=1,
            model_approval_status="PendingManualApproval",
            approval_description=None,
            customer_metadata_properties={"a": "1"},
        )

    def describe_model_package(self, _: str) -> Any:
        return self.package


class Events:
    def __init__(self) -> None:
        self.entries: list[dict] = []

    def put_events(self, Entries: list[dict]) -> dict:
        self.entries += Entries
        return {"FailedEntryCount": 0}


def test_an_update_merges_and_a_changed_approval_emits_its_event(tmp_path: Path) -> None:
    backend, events = Packages(), Events()
    actions = PackageActions(Journal(tmp_path / "journal"), lambda _: ANN)
    actions.events = events

    def original(response: Any) -> str:
        backend.package.model_approval_status = response.params["ModelApprovalStatus"]
        return "done"

    update = actions.journalled("update_model_package", original)
    params: dict[str, Any] = {
        "ModelPackageArn": backend.package.arn,
        "CustomerMetadataProperties": {"b": "2"},
    }
    assert update(types.SimpleNamespace(params=params, sagemaker_backend=backend)) == "done"
    assert params["CustomerMetadataProperties"] == {"a": "1", "b": "2"}
    assert events.entries == [], "the approval is as it was"
    params = {"ModelPackageArn": backend.package.arn, "ModelApprovalStatus": "Approved"}
    update(types.SimpleNamespace(params=params, sagemaker_backend=backend))
    assert events.entries == [approval_event(backend.package)]
    assert json.loads(events.entries[0]["Detail"])["ModelApprovalStatus"] == "Approved"


def test_a_package_that_is_created_emits_its_event(tmp_path: Path) -> None:
    """On AWS too: by it a package of a team's own pipeline is linked."""
    backend, events = Packages(), Events()
    actions = PackageActions(Journal(tmp_path / "journal"), lambda _: ANN)
    actions.events = events
    made = types.SimpleNamespace(result={"ModelPackageArn": backend.package.arn})
    create = actions.journalled("create_model_package", lambda _: made)
    response = types.SimpleNamespace(params={}, sagemaker_backend=backend)
    assert create(response) is made
    assert events.entries == [approval_event(backend.package)]


def test_a_model_card_must_be_a_json_object_and_is_given_back(tmp_path: Path) -> None:
    backend = Packages()
    actions = PackageActions(Journal(tmp_path / "journal"), lambda _: ANN)
    update = actions.journalled("update_model_package", lambda _: None)

    def with_card(content: str) -> Any:
        params = {
            "ModelPackageArn": backend.package.arn,
            "ModelCard": {"ModelCardContent": content},
        }
        return types.SimpleNamespace(params=params, sagemaker_backend=backend)

    for content in ("", "[]", "{"):
        with pytest.raises(Exception, match="is not a model card"):
            update(with_card(content))
    update(with_card("{}"))
    original = types.SimpleNamespace(result={"ModelPackageArn": backend.package.arn})
    described = actions.described(lambda _: original)(None).result
    assert described["ModelCard"] == {"ModelCardContent": "{}"}
    assert described["LastModifiedBy"] == {"IamIdentity": {"Arn": ANN}}
    assert io.StringIO(json.dumps(described)).read()
