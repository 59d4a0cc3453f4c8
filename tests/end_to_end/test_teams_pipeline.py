"""A team's own pipeline, of a name of its own, with a federated step in it: trained, registered,
linked, approved, on the fleet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import asked, mledgeops
from support.paths import APPS
from support.waiting import until

from edge.training.app_bundle import load_app
from fl_runtime.run.aws import S3Objects, client
from pipelines.local.cloud import LocalCloud, local_cloud
from pipelines.local.fleet import running_fleet
from pipelines.local.home import Home
from pipelines.run.executions import Executions
from pipelines.run.publication import upload
from pipelines.step.plain import federated_step_json, output_json, register_step_json
from registry.link_function import LinkFunction
from registry.provenance import ProvenanceMismatch

pytestmark = pytest.mark.proof
DIGITS = APPS / "digits"


def definition(cloud: LocalCloud) -> dict[str, Any]:
    """Two federated steps, the second of which goes on from the first, and a condition."""
    rounds = {"Get": "Parameters.Rounds"}
    shared: dict[str, Any] = {"app": DIGITS, "deployment": cloud.deployment, "fleet": "hall"}
    first = federated_step_json("Plain", devices=2, rounds=rounds, **shared)
    second = federated_step_json(
        "Tuned", devices=2, rounds=rounds, seed=1, depends_on=["Plain"], **shared
    )
    register = register_step_json("Store", federated="Tuned", group="hall-digits", image="x/y:1")
    good = {
        "Name": "GoodEnough",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {
                    "Type": "GreaterThan",
                    "LeftValue": output_json("Tuned", "score"),
                    "RightValue": 0.1,
                }
            ],
            "IfSteps": [register],
            "ElseSteps": [],
        },
    }
    return {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "Rounds", "Type": "Integer", "DefaultValue": 1}],
        "Steps": [first, second, good],
    }


def test_a_teams_pipeline_trains_registers_links_and_is_approved(tmp_path: Path) -> None:
    from pipelines.desk.wiring import fleet_clients

    app = load_app(DIGITS)
    with local_cloud(Home(tmp_path)) as cloud:
        sagemaker, d = client("sagemaker"), cloud.deployment
        upload(app, S3Objects(client("s3"), d.bucket))
        sagemaker.create_pipeline(
            PipelineName="team-hall",
            PipelineDefinition=json.dumps(definition(cloud)),
            RoleArn=d.pipeline_role,
            ClientRequestToken="t" * 32,
        )
        with running_fleet(cloud, fleet_clients(), "hall", 2, app):
            arn = sagemaker.start_pipeline_execution(PipelineName="team-hall")[
                "PipelineExecutionArn"
            ]
            executions = Executions(sagemaker, d.queue_url)
            assert until(lambda: executions.ended(arn), 120)
        ended = executions.read(arn)
        assert ended.status == "Succeeded", ended.reason
        assert [run.step for run in ended.federated] == ["Plain", "Tuned"]
        assert len({run.run for run in ended.federated}) == 2

        def linked() -> list[dict[str, Any]]:
            return [v for v in asked("models", home=tmp_path)["models"] if v["checks"]]

        assert until(linked, 60), "the package's event links it"
        (version,) = linked()
        assert (version["name"], version["run"]) == ("hall-digits", ended.federated[1].run)
        assert version["model_package_arn"] == ended.model_package_arn
        assert version["approval"] == "PendingManualApproval"
        # Somebody registers another model under the run's name: it is not linked.
        package = sagemaker.describe_model_package(ModelPackageName=ended.model_package_arn)
        forged = sagemaker.create_model_package(
            ModelPackageGroupName="hall-digits",
            ModelApprovalStatus="Approved",
            InferenceSpecification=package["InferenceSpecification"],
            CustomerMetadataProperties={
                **package["CustomerMetadataProperties"],
                "mledgeops.model_digest": "f" * 64,
            },
        )["ModelPackageArn"]
        link = LinkFunction(client("lambda"), d.function("link")).link
        with pytest.raises(ProvenanceMismatch, match="says that its model is ffffffffffff"):
            link(forged)
        assert len(linked()) == 1
        name = f"{version['name']}/{version['version']}"
        done = mledgeops("approve", name, "--reason", "the team has looked", home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert asked("rollout", home=tmp_path)["fleets"][0]["model_version"] == name
