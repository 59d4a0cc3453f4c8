"""Where MLflow is, in a private and in a public network."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipelines.aws.mlflow_address import tracking_uri
from pipelines.aws.policies.statement import CALL_APP
from pipelines.aws.rehearsal.values import Place, Resource, Values
from pipelines.aws.stack_specs import specs
from pipelines.deployment import Deployment

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")
PLACE = Place(account=D.account, region=D.region, zones=("a", "b"))
APP = "AWS::SageMaker::MlflowApp"


def deployed(**given: str) -> tuple[list[Resource], dict[str, Any]]:
    """The resources, and the outputs that the other stack imports."""
    exports: dict[str, Any] = {}
    made: list[Resource] = []
    for spec in specs(D, {"CodeKey": "code", **given}):
        values = Values(spec.name, spec.template, spec.parameters, PLACE, exports)
        made += values.resources()
        exports.update(values.exported())
    return made, exports


def uris(made: list[Resource]) -> set[str]:
    """The tracking URIs of functions and tasks."""
    functions = [
        r.properties["Environment"]["Variables"]["MLFLOW_TRACKING_URI"]
        for r in made
        if r.type == "AWS::Lambda::Function"
    ]
    tasks = [
        item["Value"]
        for r in made
        if r.type == "AWS::ECS::TaskDefinition"
        for item in r.properties["ContainerDefinitions"][0]["Environment"]
        if item["Name"] == "MLFLOW_TRACKING_URI"
    ]
    assert len(functions) >= 9
    assert len(tasks) == 2
    return {*functions, *tasks}


def mlflow_resources(made: list[Resource]) -> set[str]:
    """ARNs that policies let callers use MLflow on."""
    return {
        arn
        for role in made
        if role.type == "AWS::IAM::Role"
        for policy in role.properties["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if CALL_APP in statement["Action"]
        for arn in statement["Resource"]
    }


def test_a_public_network_has_a_serverless_app_that_all_parts_use() -> None:
    made, _ = deployed(Network="public")
    types = {r.type for r in made}
    assert APP in types
    assert "AWS::SageMaker::MlflowTrackingServer" not in types
    (uri,) = uris(made)
    assert ":mlflow-app/" in uri
    assert mlflow_resources(made) == {uri}


def test_a_private_network_has_a_server_whose_endpoint_reaches_it() -> None:
    made, _ = deployed()
    types = [r.type for r in made]
    assert APP not in types
    assert uris(made) == {D.mlflow_arn}
    assert mlflow_resources(made) == {D.mlflow_arn}
    assert "mlflow-app" not in {r.name.removeprefix("plant-") for r in made}


@pytest.mark.parametrize("network", ["private", "public"])
def test_an_operators_own_server_goes_first(network: str) -> None:
    made, _ = deployed(Network=network, MlflowTrackingUri="https://mlflow.example.org")
    assert uris(made) == {"https://mlflow.example.org"}
    assert not {r.type for r in made} & {APP, "AWS::SageMaker::MlflowTrackingServer"}


def test_a_public_network_leads_out_and_lets_nobody_in() -> None:
    made, _ = deployed(Network="public")
    (machine,) = (r for r in made if r.name == "plant-run")
    definition = machine.properties["DefinitionString"]
    assert '"AssignPublicIp":"ENABLED"' in definition.replace(" ", "")
    routes = [r for r in made if r.type == "AWS::EC2::Route"]
    assert len(routes) == 2
    assert all(r.properties["DestinationCidrBlock"] == "0.0.0.0/0" for r in routes)
    ingress = [r.properties for r in made if r.type == "AWS::EC2::SecurityGroupIngress"]
    groups = [r.properties for r in made if r.type == "AWS::EC2::SecurityGroup"]
    assert all("SourceSecurityGroupId" in rule and "CidrIp" not in rule for rule in ingress)
    assert not any("SecurityGroupIngress" in group for group in groups)
    assert "AWS::Route53::HostedZone" not in {r.type for r in made}


def test_a_private_network_gives_tasks_no_address_and_no_way_out() -> None:
    made, _ = deployed()
    (machine,) = (r for r in made if r.name == "plant-run")
    assert "ENABLED" not in machine.properties["DefinitionString"]
    assert not {r.type for r in made} & {"AWS::EC2::Route", "AWS::EC2::InternetGateway"}


def stack(**outputs: str) -> Any:
    listed = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
    return SimpleNamespace(describe_stacks=lambda StackName: {"Stacks": [{"Outputs": listed}]})


def test_commands_ask_the_stack_where_mlflow_is() -> None:
    assert tracking_uri(stack(MlflowUri="arn:app"), D) == "arn:app"
    assert tracking_uri(stack(Subnets="a,b"), D) == D.mlflow_arn, "a deployment of 0.4"

    def missing(StackName: str) -> Any:
        raise ClientError({"Error": {"Code": "ValidationError"}}, "DescribeStacks")

    absent = SimpleNamespace(
        describe_stacks=missing, exceptions=SimpleNamespace(ClientError=ClientError)
    )
    assert tracking_uri(absent, D) == D.mlflow_arn


def test_both_stacks_have_the_parameters_that_choose() -> None:
    for spec in specs(D, {})[1:]:
        parameters = spec.template["Parameters"]
        assert parameters["Network"]["AllowedValues"] == ["private", "public"]
        assert json.dumps(parameters["MlflowTrackingUri"])
