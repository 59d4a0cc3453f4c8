"""The CDK app's stacks, each made in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.aws import metrics
from pipelines.aws.app import find_node
from pipelines.deployment import Deployment

pytestmark = pytest.mark.proof
D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


@pytest.fixture(scope="module")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], dict[str, Any]]:
    """Make one stack alone; returns its template."""
    find_node()
    import aws_cdk as cdk

    def alone(stack: Any, name: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp(name)
        app = cdk.App(outdir=str(out), analytics_reporting=False)
        stack(app, name)
        app.synth()
        return json.loads((Path(out) / f"{name}.template.json").read_text())

    return alone


def of_type(template: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (r for r in template["Resources"].values() if r["Type"] == kind)


def test_the_base_stack_exports_the_keys_that_others_import(synthesise: Any) -> None:
    from pipelines.aws.stacks.base import KEY_EXPORT, SIGNING_EXPORTS, BaseStack

    exported = json.dumps(synthesise(BaseStack, "base")["Outputs"])
    for name in (KEY_EXPORT, *SIGNING_EXPORTS.values()):
        assert f"-{name}" in exported


def test_the_data_stack_has_the_four_tables(synthesise: Any) -> None:
    from pipelines.aws.stacks.data import DataStack

    assert len(list(of_type(synthesise(DataStack, "data"), "AWS::DynamoDB::Table"))) == 4


def test_the_sagemaker_stack_has_the_model_package_group_or_the_tracking_server(
    synthesise: Any,
) -> None:
    from pipelines.aws.stacks.sagemaker import SageMakerStack

    template = synthesise(SageMakerStack, "sagemaker")
    assert any(r["Type"].startswith("AWS::SageMaker::") for r in template["Resources"].values())
    assert not list(of_type(template, "AWS::DynamoDB::Table"))


def test_an_accepted_finding_stands_at_its_resource_with_the_reason(synthesise: Any) -> None:
    import aws_cdk as cdk

    from pipelines.aws.stacks.stack import Stack, accept

    class One(Stack):
        def __init__(self, scope: Any, name: str) -> None:
            super().__init__(scope, name, "one resource")
            accept(cdk.CfnResource(self, "R", type="AWS::SNS::Topic"), {"CKV_1": "no data in it"})

    template = synthesise(One, "one")
    assert template["Parameters"].keys() == {"Prefix"}
    (topic,) = of_type(template, "AWS::SNS::Topic")
    assert topic["Metadata"]["checkov"]["skip"] == [{"id": "CKV_1", "comment": "no data in it"}]


def test_enrolment_gives_the_expected_thing_its_certificate_and_the_device_policy() -> None:
    from pipelines.aws.stacks.devices import provisioning_template

    made = provisioning_template(D)["Resources"]
    assert made["policy"]["Properties"] == {"PolicyName": D.device_policy}
    assert made["thing"]["Properties"]["ThingName"] == {"Ref": "SerialNumber"}
    assert made["certificate"]["Properties"]["Status"] == "ACTIVE"


def test_the_dashboard_draws_each_widget_once() -> None:
    from pipelines.aws.stacks.observability import dashboard

    titles = [widget["properties"]["title"] for widget in dashboard(D.region)["widgets"]]
    assert titles == [widget.title for widget in metrics.WIDGETS]
