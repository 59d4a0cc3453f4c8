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


def device_policy(d: Deployment) -> dict[str, Any]:
    """The IoT policy that all devices share. A policy variable limits each to its own topics:
    https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
    """
    thing, base = "${iot:Connection.Thing.ThingName}", f"arn:aws:iot:{d.region}:{d.account}"
    shadow, jobs = f"$aws/things/{thing}/shadow", f"$aws/things/{thing}/jobs"
    core = f"$aws/things/{thing}/greengrass"
    # A device renews its certificate by the same topics by which it enrolled.
    enrolment = _enrolment_topics(d)
    published = (
        f"fl/*/{thing}/heartbeat",
        f"fl/*/{thing}/reply",
        f"{shadow}/get",
        f"{shadow}/update",
        f"{core}/*",
        f"{jobs}/start-next",
        f"{jobs}/*/update",
        *enrolment,
    )
    received = (
        f"fl/*/{thing}/command",
        f"{shadow}/*",
        f"{core}/*",
        f"{jobs}/*",
        *(f"{topic}/*" for topic in enrolment),
    )
    return document(
        [
            allow(
                ["iot:Connect"],
                [f"{base}:client/{thing}"],
                Bool={"iot:Connection.Thing.IsAttached": ["true"]},
            ),
            allow(["iot:Publish"], [f"{base}:topic/{name}" for name in published]),
            allow(["iot:Subscribe"], [f"{base}:topicfilter/{name}" for name in received]),
            allow(["iot:Receive"], [f"{base}:topic/{name}" for name in received]),
            allow(["iot:AssumeRoleWithCertificate"], [f"{base}:rolealias/{d.prefix}-device"]),
            _greengrass(d),
        ]
    )


def claim_policy(d: Deployment) -> dict[str, Any]:
    """The IoT policy of the claim certificate, which can only request a device's own certificate:
    https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
    """
    base, topics = f"arn:aws:iot:{d.region}:{d.account}", _enrolment_topics(d)
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
    base = f"arn:aws:iot:{d.region}:{d.account}"
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
                "iot:AddThingToThingGroup",
                "iot:ListThingGroupsForThing",
            ],
            [f"{base}:thing/*"],
        ),
        allow(
            ["iot:AddThingToThingGroup", "iot:DescribeThingGroup"],
            [f"{base}:thinggroup/{d.thing_group}"],
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
