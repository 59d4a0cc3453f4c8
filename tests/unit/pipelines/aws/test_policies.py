"""What roles and devices may do, and that tasks can reach what they may call."""

from __future__ import annotations

import json
import re

import pytest
from ministack.core.iam_evaluator import EvalContext
from ministack.services import iot
from support.paths import ROOT

from pipelines.aws import stack_specs
from pipelines.aws.policies import devices, functions, services, tasks, teams
from pipelines.aws.policies.devices import (
    POLICY_LIMIT,
    claim_policy,
    core_policy,
    device_policy,
)
from pipelines.aws.policies.roles import DATA_ROLES, FUNCTIONS, SAGEMAKER_ROLES, statements
from pipelines.aws.policies.statement import CALL_APP, allow, deliver_logs, document
from pipelines.aws.rehearsal.values import Place, Values
from pipelines.deployment import Deployment
from pipelines.local.emulators.ministack import thing_attributes

D = Deployment(account="000000000000", region="us-east-1")


LONGEST = Deployment(account="123456789012", region="ap-southeast-1", prefix="p" * 16)
NAME = "n" * 63


@pytest.mark.parametrize(
    "policy", [device_policy(LONGEST), core_policy(LONGEST, NAME, NAME), claim_policy(LONGEST)]
)
def test_no_policy_is_longer_than_aws_iot_takes(policy: dict) -> None:
    assert len(json.dumps(policy, separators=(",", ":"))) <= POLICY_LIMIT


def allows(policy: dict, action: str, resource: str, **thing: str) -> bool:
    """Whether a policy allows an action to a device, as the emulator's broker evaluates it."""
    client = thing.pop("client", "d1")
    context = {"iot:clientid": client, "iot:connection.thing.isattached": "true"}
    if not thing.pop("stranger", ""):
        context["iot:connection.thing.thingname"] = client
    context.update({f"iot:connection.thing.attributes[{key}]": v for key, v in thing.items()})
    base = f"arn:aws:iot:{D.region}:{D.account}"
    asked = EvalContext(
        principal_arn=f"{base}:cert/c",
        principal_type="Certificate",
        principal_account=D.account,
        action=action,
        resource_arn=f"{base}:{resource}",
        region=D.region,
        service_context=context,
    )
    parsed = iot._parsed_iot_policy(json.dumps(policy), tuple(sorted(context.items())))
    return bool(iot.evaluate(asked, [parsed]).decision == "Allow")


@pytest.fixture
def attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iot, "_POLICY_VARIABLE_RE", thing_attributes.VARIABLE)
    iot._parsed_iot_policy.cache_clear()


OWN = (
    ("iot:Connect", "client/d1"),
    ("iot:Publish", "topic/fl/f/d1/heartbeat"),
    ("iot:Publish", "topic/fl/f/d1/reply"),
    ("iot:Publish", "topic/$aws/things/d1/shadow/get"),
    ("iot:Publish", "topic/$aws/things/d1/shadow/update"),
    ("iot:Publish", "topic/$aws/things/d1/jobs/start-next"),
    ("iot:Publish", "topic/$aws/things/d1/jobs/j-1/update"),
    ("iot:Subscribe", "topicfilter/fl/f/d1/command"),
    ("iot:Subscribe", "topicfilter/$aws/things/d1/jobs/notify-next"),
    ("iot:Subscribe", "topicfilter/$aws/things/d1/shadow/get/accepted"),
    ("iot:Receive", "topic/fl/f/d1/command"),
    ("iot:Receive", "topic/$aws/things/d1/jobs/notify-next"),
)
FOREIGN = (
    ("iot:Connect", "client/d2"),
    ("iot:Publish", "topic/fl/g/d1/heartbeat"),
    ("iot:Publish", "topic/fl/g/d1/reply"),
    ("iot:Publish", "topic/fl/f/d2/heartbeat"),
    ("iot:Publish", "topic/fl/f/d2/command"),
    ("iot:Publish", "topic/$aws/things/d2/shadow/update"),
    ("iot:Subscribe", "topicfilter/fl/g/d1/command"),
    ("iot:Subscribe", "topicfilter/fl/+/d1/command"),
    ("iot:Subscribe", "topicfilter/fl/#"),
    ("iot:Subscribe", "topicfilter/$aws/things/d2/jobs/notify-next"),
    ("iot:Receive", "topic/fl/g/d1/command"),
    ("iot:Receive", "topic/fl/f/d2/command"),
)


def test_a_device_may_use_its_own_topics_in_its_things_fleet_only(attributes: None) -> None:
    policy = device_policy(D)
    assert all(allows(policy, *asked, fleet="f") for asked in OWN)
    assert not any(allows(policy, *asked, fleet="f") for asked in FOREIGN)
    assert not any(allows(policy, *asked) for asked in OWN if "/fl/" in asked[1]), "no attribute"
    sent = [asked for asked in OWN if asked[0] != "iot:Receive"]
    assert not any(allows(policy, *asked, fleet="f", stranger="yes") for asked in sent)


def test_a_core_may_use_its_own_topics_in_its_fleet_only(attributes: None) -> None:
    policy = core_policy(D, "f", "d1")
    assert "Thing" not in json.dumps([s["Resource"] for s in policy["Statement"]]), "no variables"
    assert all(allows(policy, *asked) for asked in OWN)
    assert not any(allows(policy, *asked) for asked in FOREIGN)
    assert allows(policy, "iot:Connect", "client/d1#2")
    assert allows(policy, "iot:Publish", "topic/$aws/things/d1/greengrassv2/health/json")
    assert not allows(policy, "iot:Connect", "client/d12")
    assert not allows(policy, "iot:Publish", "topic/$aws/things/d12/greengrassv2/health/json")


def test_the_claim_certificate_is_good_for_enrolment_only() -> None:
    claim = json.dumps(claim_policy(D))
    assert "fl/" not in claim
    assert "shadow" not in claim


REACHED = {
    "dynamodb": "",
    "s3": "",
    "iot": "iot.data",
    "states": "states",
    "secretsmanager": "secretsmanager",
    "kms": "kms",
    "ecr": "ecr.api",
    "logs": "logs",
    "sagemaker-mlflow": "sagemaker.experiments",
}

"""The endpoint by which a task reaches a service; empty: a gateway."""


def test_tasks_reach_every_service_that_they_may_call() -> None:
    from pipelines.aws.endpoints import ENDPOINTS

    called = {
        action.split(":")[0]
        for role in ("server", "proxy", "execution")
        for item in statements(role, D)
        for action in item["Action"]
        if action != CALL_APP  # of a serverless MLflow app, which only a public network has
    }
    assert called <= set(REACHED), "tasks have no way to the internet: give it an endpoint"
    assert {REACHED[service] for service in called} - {""} <= set(ENDPOINTS.values())


ROLES = (*DATA_ROLES, *SAGEMAKER_ROLES)
ANY_RESOURCE = {
    "ecr:GetAuthorizationToken",
    "iot:RegisterThing",
    "iot:ListThings",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "states:SendTaskSuccess",
    "states:SendTaskFailure",
    "states:SendTaskHeartbeat",
}
"""Actions that know no resource, besides a state machine's log deliveries."""


def test_every_role_belongs_to_one_stack_and_one_group_of_principals() -> None:
    assert len(ROLES) == len(set(ROLES))
    groups = [set(g.STATEMENTS) for g in (functions, tasks, devices, services)]
    assert sorted(role for group in groups for role in group) == sorted(ROLES)
    assert set(functions.STATEMENTS) == set(FUNCTIONS)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_no_more_than_its_statements_name(role: str) -> None:
    for item in statements(role, D):
        assert item["Effect"] == "Allow"
        assert not any("*" in action for action in item["Action"])
        if item["Resource"] == ["*"]:
            assert set(item["Action"]) <= ANY_RESOURCE or item == deliver_logs()


def test_every_function_writes_its_own_logs() -> None:
    for name in FUNCTIONS:
        group = f":log-group:/aws/lambda/mledgeops-{name}:*"
        assert any(item["Resource"][0].endswith(group) for item in statements(name, D)), name


def test_a_statement_has_a_condition_only_if_it_is_given_one() -> None:
    assert allow(["a:B"], ["r"]) == {"Effect": "Allow", "Action": ["a:B"], "Resource": ["r"]}
    assert allow(["a:B"], ["r"], Bool={"k": "v"})["Condition"] == {"Bool": {"k": "v"}}
    assert document([])["Version"] == "2012-10-17"


def further(given: str) -> list[str]:
    """The executions that the shipped template lets a function answer."""
    template = stack_specs.template("data")
    place = Place(account=D.account, region=D.region, zones=("a", "b"))
    values = Values("data", template, {"FurtherPipelines": given}, place, {})
    role = next(
        r["Properties"]
        for r in template["Resources"].values()
        if r["Type"] == "AWS::IAM::Role" and "conclude" in json.dumps(r["Properties"]["RoleName"])
    )
    return next(
        values.resolve(statement["Resource"])
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "sagemaker:SendPipelineExecutionStepSuccess" in statement["Action"]
    )


def test_pipelines_that_the_stack_lists_are_answered_besides_our_own() -> None:
    base = "arn:aws:sagemaker:us-east-1:000000000000:pipeline"
    own = f"{base}/mledgeops-*/execution/*"
    assert further("") == [own]
    assert further(f"{base}/team-wind") == [own, f"{base}/team-wind/execution/*"]
    assert further(f"{base}/a,{base}/b-*") == [
        own,
        f"{base}/a/execution/*",
        f"{base}/b-*/execution/*",
    ]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("", True),
        ("arn:aws:sagemaker:eu-central-1:111122223333:pipeline/team-wind", True),
        ("arn:aws:sagemaker:eu-central-1:111122223333:pipeline/*", True),
        ("arn:aws:sagemaker:us-east-1:111122223333:pipeline/a,team-b", False),
        ("team-wind", False),
        ("*", False),
        ("arn:aws:sagemaker:us-east-1:111122223333:pipeline/a/execution/1", False),
    ],
)
def test_only_pipelines_of_one_account_can_be_listed(given: str, taken: bool) -> None:
    pattern = stack_specs.template("data")["Parameters"]["FurtherPipelines"]["AllowedPattern"]
    assert bool(re.match(pattern, given)) is taken


def test_the_handbook_says_what_a_teams_role_needs() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    section = text[text.index("## Pipelines of other teams") :]
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]
    key = "arn:aws:kms:REGION:ACCOUNT:key/DATA-KEY"
    d = Deployment(account="ACCOUNT", region="REGION", key=key)
    assert shown[:2] == [document(teams.pipeline_role(d)), document(teams.author(d))]


def test_a_teams_role_may_do_for_the_step_what_our_own_pipelines_role_may() -> None:
    """Ours calls two functions besides: a team's package is linked by its event."""

    def grants(given: list) -> set[tuple[str, str]]:
        return {(a, r) for s in given for a in s["Action"] for r in s["Resource"]}

    ours = grants(statements("pipeline", D))
    assert {a for a, _ in ours - grants(teams.pipeline_role(D))} == {"lambda:InvokeFunction"}
    assert grants(teams.pipeline_role(D)) <= ours


def test_the_data_keys_policy_leaves_its_use_to_the_accounts_policies() -> None:
    keys = stack_specs.template("base")["Resources"].values()
    policies = [
        json.dumps(key["Properties"]["KeyPolicy"]["Statement"])
        for key in keys
        if key["Type"] == "AWS::KMS::Key" and "logs." in json.dumps(key["Properties"])
    ]
    assert len(policies) == 1
    assert ":root" in policies[0]
