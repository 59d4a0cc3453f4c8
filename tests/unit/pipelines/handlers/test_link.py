"""Packages of other pipelines are linked by their event, and only what their runs made."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.keys import RECORDS
from fakes.provenance import Linked
from fakes.registries import MemoryModels
from msgspec.structs import replace

from fl_runtime.run.keys import spec_key
from fl_runtime.run.spec import decode_spec
from pipelines.handlers import link, promote
from pipelines.run.names import package_group
from registry.link_function import LinkFunction
from registry.linking import Linking
from registry.mlflow_registry import MlflowRegistry, RunArtifacts
from registry.model_version import DIGEST_TAG, RUN_TAG
from registry.policy import PrecheckPolicy
from registry.run_record import RunRecords, sign_run

ARN = "arn:package"


class World(Linked):
    """A package that a team's pipeline has registered, with both functions around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, pipeline: str = "team-wind") -> None:
        super().__init__(with_evidence=False)
        self.models = MemoryModels()
        self.mlflow = MlflowRegistry(self.models)
        run = decode_spec(self.objects.data[spec_key("run-1")])
        name = pipeline.format(group=package_group(run.app_name))
        arn = f"arn:aws:sagemaker:us-east-1:000000000000:pipeline/{name}/execution/1"
        run = replace(run, pipeline_execution_arn=arn)
        self.objects.put(spec_key("run-1"), msgspec.json.encode(run))
        place = "s3://b/runs/run-1/model/model.tar.gz"
        container = {"Containers": [{"ModelDataUrl": place}]}
        self.packages.packages[ARN]["InferenceSpecification"] = container
        objects: Any = self.objects
        linking = Linking(
            mlflow=self.mlflow,
            artifacts=RunArtifacts(self.models),
            sagemaker=self.sagemaker,
            objects=objects,
            heartbeats=lambda _: [],
            prechecks=PrecheckPolicy(),
        )
        self.signed: list[str] = []
        self.begun: list[Any] = []
        registry = SimpleNamespace(
            sagemaker=self.sagemaker,
            objects=self.objects,
            mlflow=self.mlflow,
            prefix="mledgeops",
            run_records=RunRecords(self.objects, RECORDS.verify, "b"),
            linking=lambda: linking,
            record_signer=lambda: SimpleNamespace(
                give_record=lambda package, number: self.signed.append(number),
                give_run_record=lambda run: sign_run(run, objects, RECORDS.sign),
            ),
            audit=self.trail,
            rollouts=SimpleNamespace(begin=lambda version, by, reason: self.begun.append(version)),
            link_function=LinkFunction(self, "ours-link"),
        )
        monkeypatch.setattr(link, "registry", lambda: registry)
        monkeypatch.setattr(promote, "registry", lambda: registry)
        link.handler({"run": "run-1"}, None)

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:
        """Lambda: the function runs here."""
        said = link.handler(json.loads(Payload), None)
        return {"Payload": io.BytesIO(json.dumps(said).encode())}

    def event(self) -> Any:
        """What SageMaker's event makes of the package as it is."""
        package = self.packages.packages[ARN]
        detail = {
            "ModelPackageArn": ARN,
            "ModelPackageGroupName": "x",
            "ModelApprovalStatus": package["ModelApprovalStatus"],
            "ApprovalDescription": package.get("ApprovalDescription", ""),
        }
        return promote.handler({"detail": detail}, None)

    def tag(self, **tags: str) -> None:
        self.packages.packages[ARN]["CustomerMetadataProperties"] |= tags


def test_a_teams_package_is_linked_when_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    assert world.event() == {"promoted": False, "linked": True}
    assert world.version.model_package_arn == ARN
    assert world.signed == ["1"]
    assert world.sagemaker.get(ARN).model_version == "x/1"
    world.event()
    assert len(world.mlflow.versions()) == 1, "the same event again makes no second version"


def test_our_own_pipelines_package_is_left_to_its_link_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, pipeline="mledgeops-{group}")
    assert world.event() == {"promoted": False}
    assert world.mlflow.versions() == []


def test_a_package_with_anothers_model_is_not_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.tag(**{DIGEST_TAG: "f" * 64})
    assert world.event() == {"promoted": False}
    world.tag(**{RUN_TAG: "run-of-nobody"})
    assert world.event() == {"promoted": False}
    world.tag(**{RUN_TAG: ""})
    assert world.event() == {"promoted": False}
    assert world.mlflow.versions() == []


def test_a_package_that_was_registered_as_approved_waits_for_a_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.packages.packages[ARN]["ModelApprovalStatus"] = "Approved"
    world.event()
    package = world.sagemaker.get(ARN)
    assert (package.approval, world.mlflow.versions()) == ("PendingManualApproval", [])
    world.event()  # the one that taking the approval back emits
    assert world.version.approval == "PendingManualApproval"
    assert world.begun == [], "nothing goes to the fleet before a person has approved it"


def test_a_rejected_package_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.packages.packages[ARN]["ModelApprovalStatus"] = "Rejected"
    world.event()
    assert world.mlflow.versions() == []
