"""Each rule finds what it is for, and nothing where it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.aws.rehearsal.checks import limits, network, policies, tasks
from pipelines.aws.rehearsal.rehearsed import Bundle, Check, Rehearsed
from pipelines.aws.rehearsal.values import Place, Resource, Values, kind_of
from pipelines.errors import DeployError

PLACE = Place(account="123456789012", region="eu-central-1", zones=("a", "b"))
SEEN = Rehearsed(
    prefix="plant",
    place=PLACE,
    resources=(),
    calls_before={"plant-data": frozenset()},
    template_bytes={},
    zones_of_services={},
    images={},
)


def resource(type: str, name: str = "it", **properties: Any) -> Resource:
    return Resource(
        stack="plant-data",
        logical="It",
        type=f"AWS::{type}",
        properties=properties,
        template={},
        name=name,
    )


def seen(*resources: Resource, **more: Any) -> Rehearsed:
    return replace(SEEN, resources=resources, **more)


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def queue(seconds: int) -> Rehearsed:
    return seen(
        resource("Lambda::Function", "work", Timeout=60),
        resource("SQS::Queue", "jobs", VisibilityTimeout=seconds),
        resource(
            "Lambda::EventSourceMapping",
            EventSourceArn="arn:aws:sqs:eu-central-1:123456789012:jobs",
            FunctionName="work",
        ),
    )


def topic(*allowed: dict[str, Any]) -> Rehearsed:
    return seen(
        resource("CloudWatch::Alarm", AlarmActions=["arn:topic"]),
        resource("SNS::TopicPolicy", Topics=["arn:topic"], PolicyDocument=policy(*allowed)),
    )


def role(arn: str) -> Rehearsed:
    own = policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": arn})
    return seen(resource("IAM::Role", Policies=[{"PolicyName": "own", "PolicyDocument": own}]))


def long_role(size: int) -> Rehearsed:
    own = policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "a" * size})
    return seen(
        resource(
            "IAM::Role",
            AssumeRolePolicyDocument=policy(),
            Policies=[{"PolicyName": "own", "PolicyDocument": own}],
        )
    )


def task(cpu: str, memory: str) -> Rehearsed:
    return seen(resource("ECS::TaskDefinition", Cpu=cpu, Memory=memory))


def machine(**state: Any) -> Rehearsed:
    inner = {"States": {"Inner": {"Type": "Task", **state}}}
    definition = {"States": {"Outer": {"Type": "Parallel", "Branches": [inner]}}}
    return seen(resource("StepFunctions::StateMachine", DefinitionString=json.dumps(definition)))


def server(heartbeat: int) -> Rehearsed:
    return machine(
        Resource="arn:aws:states:::ecs:runTask.waitForTaskToken", HeartbeatSeconds=heartbeat
    )


def strategy(*weights: int) -> Rehearsed:
    listed = [{"CapacityProvider": "FARGATE", "Weight": weight} for weight in weights]
    return machine(Resource="x", Parameters={"CapacityProviderStrategy": listed})


def container(dockerfile: str) -> Rehearsed:
    mounts = [{"ContainerPath": "/tmp", "SourceVolume": "scratch"}]
    one = {"Name": "proxy", "User": "10001", "MountPoints": mounts}
    return seen(
        resource("ECS::TaskDefinition", ContainerDefinitions=[one]), images={"proxy": dockerfile}
    )


def bucket_policy(**condition: Any) -> Rehearsed:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", **condition}
    return seen(resource("S3::BucketPolicy", PolicyDocument=policy(statement)))


CLOUDWATCH = {"Effect": "Allow", "Principal": {"Service": ["cloudwatch.amazonaws.com"]}}
FINAL = '# a build\nFROM a AS build\nFROM b\nRUN chmod 1777 /tmp\nVOLUME ["/tmp"]\n'
CASES: list[tuple[Check, Rehearsed, Rehearsed]] = [
    (
        limits.service_models,
        seen(resource("IoT::ThingType", "a b", ThingTypeName="a b")),
        seen(resource("IoT::ThingType", "a-b", ThingTypeName="a-b")),
    ),
    (limits.names, seen(resource("S3::Bucket", "a" * 64)), seen(resource("S3::Bucket", "a" * 63))),
    (
        limits.names,
        seen(resource("IoT::TopicRule", "with-hyphen")),
        seen(resource("IoT::TopicRule", "with_none")),
    ),
    (
        limits.iot_policies,
        seen(resource("IoT::Policy", PolicyDocument=policy({"Resource": "a" * 1998}))),
        seen(resource("IoT::Policy", PolicyDocument=policy({"Resource": "a" * 1990}))),
    ),
    (limits.role_policies, long_role(10_240), long_role(10_000)),
    (
        limits.templates,
        seen(template_bytes={"plant-data": 2**20 + 1}),
        seen(template_bytes={"plant-data": 2**20}),
    ),
    (
        limits.functions,
        seen(bundle=Bundle(unzipped=250 * 2**20 + 1, glibc={})),
        seen(bundle=Bundle(unzipped=250 * 2**20, glibc={})),
    ),
    (
        limits.functions,
        seen(resource("Lambda::Function", Environment={"Variables": {"A": "a" * 4090}})),
        seen(resource("Lambda::Function", Environment={"Variables": {"A": "a" * 4000}})),
    ),
    (
        limits.counts,
        seen(*[resource("EC2::VPCEndpoint", VpcEndpointType="Interface")] * 51),
        seen(*[resource("EC2::VPCEndpoint", VpcEndpointType="Interface")] * 50),
    ),
    (
        limits.counts,
        seen(*[resource("Logs::MetricFilter", LogGroupName="g")] * 101),
        seen(*[resource("Logs::MetricFilter", LogGroupName="g")] * 100),
    ),
    (
        network.iot_name,
        seen(resource("Route53::HostedZone", Name="iot.eu-central-1.amazonaws.com")),
        seen(resource("Route53::HostedZone", Name="data-ats.iot.eu-central-1.amazonaws.com")),
    ),
    (tasks.visibility, queue(59), queue(60)),
    (tasks.fargate_sizes, task("256", "4096"), task("256", "2048")),
    (tasks.fargate_sizes, task("300", "1024"), task("2048", "8192")),
    (tasks.cold_start, server(299), server(300)),
    (tasks.no_fallback, strategy(1, 0), strategy(1)),
    (tasks.writable_mounts, container(FINAL.replace("VOLUME", "# VOLUME")), container(FINAL)),
    (tasks.writable_mounts, container(FINAL.replace("chmod", "ls")), container(FINAL)),
    (
        tasks.glibc,
        seen(
            resource("Lambda::Function", Runtime="python3.12"),
            bundle=Bundle(unzipped=0, glibc={"a.so": (2, 35)}),
        ),
        seen(
            resource("Lambda::Function", Runtime="python3.12"),
            bundle=Bundle(unzipped=0, glibc={"a.so": (2, 34)}),
        ),
    ),
    (
        tasks.service_role,
        seen(resource("ECS::Cluster", CapacityProviders=["FARGATE"])),
        seen(
            resource("ECS::Cluster", CapacityProviders=["FARGATE"]),
            calls_before={"plant-data": frozenset({tasks.ECS_PRINCIPAL})},
        ),
    ),
    (policies.alarm_topics, topic(), topic(CLOUDWATCH)),
    (policies.foreign_names, role("arn:aws:s3:::mledgeops-1/*"), role("arn:aws:s3:::plant-1/*")),
    (policies.data_access, bucket_policy(), bucket_policy(Condition={"Bool": {}})),
]


@pytest.mark.parametrize(
    ("check", "broken", "kept"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_rule_finds_what_breaks_it_and_nothing_else(
    check: Check, broken: Rehearsed, kept: Rehearsed
) -> None:
    assert len(list(check(broken))) >= 1
    assert list(check(kept)) == []


def values(resources: dict[str, Any], **template: Any) -> Values:
    return Values("plant-data", {"Resources": resources, **template}, {"P": "x"}, PLACE, {})


def test_a_template_is_resolved_in_the_order_of_its_references() -> None:
    queue = {
        "Type": "AWS::SQS::Queue",
        "Properties": {"QueueName": {"Fn::Join": ["-", ["q", {"Ref": "P"}]]}},
    }
    topic = {
        "Type": "AWS::SNS::Topic",
        "Properties": {
            "TopicName": {"Fn::GetAtt": ["Queue", "QueueName"]},
            "DisplayName": {"Fn::If": ["Yes", {"Ref": "AWS::NoValue"}, "a"]},
            "Subscription": [{"Endpoint": {"Fn::GetAtt": ["Queue", "Arn"]}}],
        },
    }
    left = {"Type": "AWS::SNS::Topic", "Condition": "No"}
    given = values(
        {"Topic": topic, "Queue": queue, "Left": left},
        Conditions={
            "Yes": {"Fn::Equals": [{"Ref": "P"}, "x"]},
            "No": {"Fn::Not": [{"Condition": "Yes"}]},
        },
    )
    first, second = given.resources()
    assert (first.name, second.name) == ("q-x", "q-x")
    arn = "arn:aws:sqs:eu-central-1:123456789012:q-x"
    assert second.properties == {"TopicName": "q-x", "Subscription": [{"Endpoint": arn}]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"Ref": "Nowhere"}, "refers to Nowhere"),
        ({"Fn::ImportValue": "plant-key"}, "imports plant-key, which no stack exports"),
        ({"Fn::Cidr": []}, "does not know Fn::Cidr"),
    ],
)
def test_what_leads_nowhere_is_named(value: Any, said: str) -> None:
    with pytest.raises(DeployError, match=said):
        values({}).resolve(value)


def test_a_resource_type_that_nobody_described_is_named() -> None:
    with pytest.raises(DeployError, match=r"AWS::Quantum::Computer: add it to"):
        kind_of("AWS::Quantum::Computer")
