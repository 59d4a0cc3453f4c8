"""Devices in AWS IoT: their policies, the rules that store what they send, and their enrolment."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_iot as iot
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from constructs import Construct

from pipelines.aws.policies.devices import claim_policy, device_policy
from pipelines.aws.stacks.stack import KEPT
from pipelines.deployment import Deployment

# The sender is taken from the topic, which the broker checked; the body is stored as it came.
# Heartbeats are kept for 30 days, replies for 7.
RULES = {
    "heartbeat": (
        "SELECT topic(2) AS fleet, topic(3) AS device, body, principal() AS certificate, "
        "timestamp() AS last_seen, "
        "timestamp() / 1000 + 2592000 AS expires_at FROM 'fl/+/+/heartbeat'"
    ),
    "reply": (
        "SELECT key AS reply_key, topic(2) AS fleet, topic(3) AS device, body, "
        "timestamp() / 1000 + 604800 AS expires_at FROM 'fl/+/+/reply'"
    ),
}
CREDENTIAL_SECONDS = 3600
"""How long the AWS credentials of a Greengrass core are valid."""


class Devices(Construct):
    """The deployment's part of AWS IoT Core."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        d: Deployment,
        roles: dict[str, iam.CfnRole],
        hook: functions.CfnFunction,
        errors: logs.LogGroup,
    ) -> None:
        super().__init__(scope, name)
        policy = iot.CfnPolicy(
            self, "Policy", policy_name=d.device_policy, policy_document=device_policy(d)
        )
        iot.CfnPolicy(
            self, "ClaimPolicy", policy_name=d.claim_policy, policy_document=claim_policy(d)
        )
        kind = iot.CfnThingType(self, "Type", thing_type_name=d.thing_type)
        group = iot.CfnThingGroup(self, "Group", thing_group_name=d.thing_group)
        # Devices outlive the deployment. A type that things have cannot be deleted, and the next
        # deployment takes both over by their names.
        for kept in (kind, group):
            kept.apply_removal_policy(KEPT)
        iot.CfnRoleAlias(
            self,
            "RoleAlias",
            role_alias=f"{d.prefix}-device",
            role_arn=roles["device"].attr_arn,
            credential_duration_seconds=CREDENTIAL_SECONDS,
        )
        self._rules(d, roles["iot-rule"], errors)
        self._provisioning(d, roles["provisioning"], hook).node.add_dependency(policy, kind, group)

    def _rules(self, d: Deployment, role: iam.CfnRole, errors: logs.LogGroup) -> None:
        failed = iot.CfnTopicRule.ActionProperty(
            cloudwatch_logs=iot.CfnTopicRule.CloudwatchLogsActionProperty(
                log_group_name=errors.log_group_name, role_arn=role.attr_arn
            )
        )
        for rule, sql in RULES.items():
            table = d.devices_table if rule == "heartbeat" else d.replies_table
            put = iot.CfnTopicRule.DynamoDBv2ActionProperty(
                put_item=iot.CfnTopicRule.PutItemInputProperty(table_name=table),
                role_arn=role.attr_arn,
            )
            iot.CfnTopicRule(
                self,
                f"Rule{rule.capitalize()}",
                rule_name=f"{d.prefix}_{rule}",
                topic_rule_payload=iot.CfnTopicRule.TopicRulePayloadProperty(
                    sql=sql,
                    aws_iot_sql_version="2016-03-23",
                    rule_disabled=False,
                    error_action=failed,
                    actions=[iot.CfnTopicRule.ActionProperty(dynamo_d_bv2=put)],
                ),
            )

    def _provisioning(
        self, d: Deployment, role: iam.CfnRole, hook: functions.CfnFunction
    ) -> iot.CfnProvisioningTemplate:
        """Enrolment by claim, and rotation by a device's own certificate. The hook decides:
        https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
        """
        permission = functions.CfnPermission(
            self,
            "HookPermission",
            action="lambda:InvokeFunction",
            function_name=hook.attr_arn,
            principal="iot.amazonaws.com",
            source_arn=f"arn:aws:iot:{d.region}:{d.account}:provisioningtemplate/{d.provisioning_template}",
        )
        template = iot.CfnProvisioningTemplate(
            self,
            "Provisioning",
            template_name=d.provisioning_template,
            enabled=True,
            provisioning_role_arn=role.attr_arn,
            template_body=cdk.Stack.of(self).to_json_string(provisioning_template(d)),
            pre_provisioning_hook=iot.CfnProvisioningTemplate.ProvisioningHookProperty(
                payload_version="2020-04-01", target_arn=hook.attr_arn
            ),
        )
        template.node.add_dependency(permission)
        return template


def provisioning_template(d: Deployment) -> dict[str, Any]:
    """What enrolment does: the thing exists already, because the operator expects it, and gets the
    new certificate. Its attributes and groups stay the operator's: the fleet that a device names is
    checked by the hook, and written nowhere.
    """
    return {
        "Parameters": {
            name: {"Type": "String"}
            for name in ("SerialNumber", "Fleet", "Token", "AWS::IoT::Certificate::Id")
        },
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Ref": "SerialNumber"},
                    "ThingTypeName": d.thing_type,
                },
                "OverrideSettings": {"ThingTypeName": "REPLACE"},
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {
                    "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                    "Status": "ACTIVE",
                },
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": d.device_policy}},
        },
    }
