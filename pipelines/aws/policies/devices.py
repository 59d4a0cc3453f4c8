"""What devices may do, by their IoT policies and their role, and what AWS IoT may do for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.aws.policies.statement import (
    Statement,
    allow,
    document,
    log_group_arn,
    use_key,
    use_objects,
    use_table,
)
from pipelines.deployment import Deployment

POLICY_LIMIT = 2048
"""Characters of an IoT policy, white space not counted:
https://docs.aws.amazon.com/general/latest/gr/iot-core.html
"""
_THING = "${iot:Connection.Thing.ThingName}"
_FLEET = "${iot:Connection.Thing.Attributes[fleet]}"


def device_policy(d: Deployment) -> dict[str, Any]:
    """The IoT policy that all devices share. Policy variables limit each to its own topics, in the
    fleet that the operator has given its thing: no device sets an attribute of a thing.
    https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
    """
    base, own, fleet = _base(d), f"$aws/things/{_THING}", f"fl/{_FLEET}/{_THING}"
    # A device renews its certificate by the same topics by which it enrolled.
    enrolment = _enrolment_topics(d)
    published = (
        f"{fleet}/heartbeat",
        f"{fleet}/reply",
        f"{own}/shadow/get",
        f"{own}/shadow/update",
        f"{own}/jobs/start-next",
        f"{own}/jobs/*/update",
        *enrolment,
    )
    asked = (f"{fleet}/command", f"{own}/*", *(f"{topic}/*" for topic in enrolment))
    return document(
        [
            allow(
                ["iot:Connect"],
                [f"{base}:client/{_THING}"],
                Bool={"iot:Connection.Thing.IsAttached": ["true"]},
            ),
            allow(["iot:Publish"], [f"{base}:topic/{name}" for name in published]),
            allow(["iot:Subscribe"], [f"{base}:topicfilter/{name}" for name in asked]),
            # Of AWS's own topics a device gets what it may subscribe to: short, for the limit.
            allow(["iot:Receive"], [f"{base}:topic/{fleet}/command", f"{base}:topic/$aws/*"]),
        ]
    )


def core_policy(d: Deployment, fleet: str, device: str) -> dict[str, Any]:
    """The IoT policy of one Greengrass core, made for it by the operator. Its names are written
    out: variables of a thing do not work for cores. The nucleus adds a suffix to the client id of
    each further connection, and uses more of its thing's topics than the agent.
    https://docs.aws.amazon.com/greengrass/v2/developerguide/device-auth.html
    """
    base, own, topics = _base(d), f"$aws/things/{device}/*", f"fl/{fleet}/{device}"
    # One statement for both, for the limit: a core may send itself commands, unsigned.
    used = (f"{topics}/heartbeat", f"{topics}/reply", f"{topics}/command", own)
    return document(
        [
            allow(["iot:Connect"], [f"{base}:client/{device}", f"{base}:client/{device}#*"]),
            allow(["iot:Publish", "iot:Receive"], [f"{base}:topic/{name}" for name in used]),
            allow(["iot:Subscribe"], [f"{base}:topicfilter/{name}" for name in used[2:]]),
            allow(["iot:AssumeRoleWithCertificate"], [f"{base}:rolealias/{d.prefix}-device"]),
            _greengrass(d),
        ]
    )


def _base(d: Deployment) -> str:
    return f"arn:aws:iot:{d.region}:{d.account}"


def claim_policy(d: Deployment) -> dict[str, Any]:
    """The IoT policy of the claim certificate, which can only request a device's own certificate:
    https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
    """
    base, topics = _base(d), _enrolment_topics(d)
    return document(
        [
            allow(["iot:Connect"], [f"{base}:client/claim-*"]),
            allow(["iot:Publish"], [f"{base}:topic/{topic}" for topic in topics]),
            allow(["iot:Subscribe"], [f"{base}:topicfilter/{topic}/*" for topic in topics]),
            allow(["iot:Receive"], [f"{base}:topic/{topic}/*" for topic in topics]),
        ]
    )


def _enrolment_topics(d: Deployment) -> tuple[str, str]:
    return (
        "$aws/certificates/create-from-csr/json",
        f"$aws/provisioning-templates/{d.provisioning_template}/provision/json",
    )


def _greengrass(d: Deployment) -> Statement:
    """What a Greengrass core asks its cloud:
    https://docs.aws.amazon.com/greengrass/v2/developerguide/device-auth.html
    """
    return allow(
        [
            "greengrass:GetDeploymentConfiguration",
            "greengrass:GetComponentVersionArtifact",
            "greengrass:ResolveComponentCandidates",
            "greengrass:ListThingGroupsForCoreDevice",
        ],
        [f"arn:aws:greengrass:{d.region}:{d.account}:*"],
    )


def _device(d: Deployment) -> list[Statement]:
    """A Greengrass core's role: it reads its components' artifacts and writes its logs. Runs are
    out of its reach.
    """
    group = f"arn:aws:logs:{d.region}:{d.account}:log-group:/aws/greengrass/*"
    return [
        allow(["s3:GetObject"], [f"arn:aws:s3:::{d.code_bucket}/components/*"]),
        use_key(d, "s3"),
        allow(
            [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "logs:DescribeLogStreams",
            ],
            [group, f"{group}:*"],
        ),
    ]


def _iot_rule(d: Deployment) -> list[Statement]:
    errors = log_group_arn(d, d.log_group("iot-errors"))
    return [
        use_table(d, d.devices_table, "PutItem"),
        use_table(d, d.replies_table, "PutItem"),
        use_key(d, "dynamodb"),
        allow(
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [f"{errors}:*"],
        ),
    ]


def _provisioning(d: Deployment) -> list[Statement]:
    """What the provisioning template does. AWS's own policy AWSIoTThingsRegistration grants it on
    all resources.
    """
    base = _base(d)
    return [
        # The certificate's id is not known in advance.
        allow(
            [
                "iot:AttachPolicy",
                "iot:AttachThingPrincipal",
                "iot:DescribeCertificate",
                "iot:UpdateCertificate",
            ],
            [f"{base}:cert/*"],
        ),
        allow(
            [
                "iot:CreateThing",
                "iot:DescribeThing",
                "iot:UpdateThing",
                "iot:AttachThingPrincipal",
            ],
            [f"{base}:thing/*"],
        ),
        allow(["iot:CreateThing", "iot:DescribeThingType"], [f"{base}:thingtype/{d.thing_type}"]),
        allow(["iot:RegisterThing"], ["*"]),  # the action knows no resource
    ]


def _job_urls(d: Deployment) -> list[Statement]:
    """AWS IoT signs the URLs in job documents with this role:
    https://docs.aws.amazon.com/iot/latest/developerguide/create-manage-jobs-presigned-URLs.html
    """
    return [use_objects(d, "runs/*", "Get"), use_key(d, "s3")]


STATEMENTS: Mapping[str, Callable[[Deployment], list[Statement]]] = {
    "device": _device,
    "iot-rule": _iot_rule,
    "provisioning": _provisioning,
    "job-urls": _job_urls,
}
"""By role."""
