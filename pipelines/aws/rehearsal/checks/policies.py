"""Who may do what, and whose names a deployment uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.aws.rehearsal.rehearsed import Rehearsed

OWN_TAG = "mledgeops"
"""The name of the package: a tag's key and a namespace of metrics, whatever the prefix is."""
_RESOURCE_KEYS = ("Resource", "NotResource")


def alarm_topics(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Topics to which alarms cannot publish: a policy of its own replaces a topic's default one."""
    actions = [
        action
        for alarm in seen.of_type("AWS::CloudWatch::Alarm")
        for action in alarm.properties.get("AlarmActions", [])
    ]
    for policy in seen.of_type("AWS::SNS::TopicPolicy"):
        statements = policy.properties["PolicyDocument"]["Statement"]
        services = {
            service
            for statement in statements
            if statement["Effect"] == "Allow"
            for service in _listed(statement.get("Principal", {}), "Service")
        }
        if set(policy.properties["Topics"]) & set(actions) and (
            "cloudwatch.amazonaws.com" not in services
        ):
            yield policy.where, "alarms may not publish to the topic: they never notify"


def foreign_names(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Permissions that name another deployment's resources: two share an account."""
    if seen.prefix == OWN_TAG:
        return
    for role in seen.of_type("AWS::IAM::Role"):
        for policy in role.properties.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                for key in _RESOURCE_KEYS:
                    listed = statement.get(key, [])
                    for arn in [listed] if isinstance(listed, str) else listed:
                        if OWN_TAG in arn:
                            yield role.where, f"{arn} does not begin with the prefix {seen.prefix}"


def taken_names(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """What a failed or destroyed deployment left, and the next one cannot take over."""
    yield from seen.taken


def trusted_keys(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Signing keys that change under enrolled devices, which trust the old ones."""
    yield from seen.lost_keys


def data_access(seen: Rehearsed) -> Iterator[tuple[str, str]]:
    """Policies that are open to everybody."""
    for resource in seen.of_type(
        "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"
    ):
        for statement in resource.properties["PolicyDocument"]["Statement"]:
            public = statement.get("Principal") in ("*", {"AWS": "*"})
            if statement["Effect"] == "Allow" and public and not statement.get("Condition"):
                yield resource.where, f"open to everybody: {json.dumps(statement)[:200]}"


def _listed(principal: Any, kind: str) -> list[str]:
    found = principal.get(kind, []) if isinstance(principal, dict) else []
    return [found] if isinstance(found, str) else list(found)
