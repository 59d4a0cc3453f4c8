"""What a deployment costs at rest, counted in the templates that deploy."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT
from support.templates import resources

from pipelines.aws import costs
from pipelines.aws.stack_specs import specs
from pipelines.cli.commands.operate.deploy import keep_network
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")
TRIAL = {"Network": "public"}
OWN = {"MlflowTrackingUri": "https://mlflow.example.org"}


def found(given: dict[str, str]) -> list[costs.StandingCost]:
    return costs.standing_costs(D, specs(D, {"CodeKey": "code", **given}))


def at_rest(given: dict[str, str]) -> float:
    return costs.totals(found(given))["at_rest"]


def test_a_trial_of_ten_devices_stands_for_less_than_fifteen_dollars() -> None:
    assert at_rest(TRIAL) + 10 * costs.DEVICE < 15
    kinds = {item.type for item in found(TRIAL)}
    assert not kinds & {"AWS::EC2::VPCEndpoint", "AWS::SageMaker::MlflowTrackingServer"}


def test_a_private_network_pays_for_each_endpoint_in_each_zone_and_for_its_mlflow_server() -> None:
    by_type = {item.type: item for item in found({})}
    endpoints = by_type["AWS::EC2::VPCEndpoint"]
    assert endpoints.usd == pytest.approx(endpoints.count * 2 * 7.3)
    assert found({})[0].type == "AWS::SageMaker::MlflowTrackingServer", "the dearest comes first"
    # Another server needs neither the managed one nor its endpoint.
    assert at_rest({}) - at_rest(OWN) == pytest.approx(438 + 2 * 7.3)


def test_every_price_is_of_something_that_deploys() -> None:
    assert all(list(resources(kind)) for kind in costs.MONTHLY)


def test_the_handbook_says_what_is_computed() -> None:
    handbook = (ROOT / "docs" / "operate.md").read_text()
    for given, name in (
        (TRIAL, "public network"),
        ({}, "private network"),
        (OWN, "private, your own MLflow"),
    ):
        said = re.search(rf"^\| fixed: {name} \| ([0-9]+) a month", handbook, re.MULTILINE)
        assert said is not None, name
        assert int(said.group(1)) == round(at_rest(given)), name


def test_the_sum_and_its_parts_are_said() -> None:
    text = costs.costs_text(found(TRIAL))
    assert re.match(r"about \d+ USD a month at rest", text)
    assert "Key 4.00" in text


def test_a_deployment_keeps_its_network() -> None:
    keep_network({}, TRIAL)
    keep_network({"Network": "public"}, {})
    keep_network({"Prefix": "plant"}, {"Network": "private"})
    with pytest.raises(DeployError, match="network is private, and a deployment keeps"):
        keep_network({"Prefix": "plant"}, TRIAL)
    with pytest.raises(DeployError, match="network is public"):
        keep_network({"Network": "public"}, {"Network": "private"})
