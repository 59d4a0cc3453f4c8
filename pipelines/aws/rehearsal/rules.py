"""The rules of a rehearsal: what AWS refuses or lets through and breaks later, and where it says
so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.aws.rehearsal.checks import limits, network, policies, tasks
from pipelines.aws.rehearsal.rehearsed import Check, Rehearsed

_DOCS = "https://docs.aws.amazon.com"


@dataclass(frozen=True, kw_only=True)
class DeployRule:
    """One thing that a deployment must keep."""

    name: str
    says: str
    page: str
    """The documentation that says so."""
    check: Check
    refuses: bool = True
    """Whether a deployment that breaks it fails or does not work; otherwise it is a remark."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that is broken."""

    rule: str
    where: str
    reason: str
    page: str
    refuses: bool


RULES = (
    DeployRule(
        name="region",
        says="the region has every service",
        page="https://aws.amazon.com/about-aws/global-infrastructure/regional-product-services/",
        check=network.regions,
    ),
    DeployRule(
        name="greengrass",
        says="the region has Greengrass",
        page=f"{_DOCS}/general/latest/gr/greengrassv2.html",
        check=network.greengrass,
        refuses=False,
    ),
    DeployRule(
        name="service-model",
        says="requests are what the services' models say",
        page="https://github.com/boto/botocore/tree/develop/botocore/data",
        check=limits.service_models,
    ),
    DeployRule(
        name="names",
        says="names have the services' forms",
        page=f"{_DOCS}/AmazonS3/latest/userguide/bucketnamingrules.html",
        check=limits.names,
    ),
    DeployRule(
        name="iot-policy",
        says=f"an IoT policy has at most {limits.IOT_POLICY} characters",
        page=f"{_DOCS}/general/latest/gr/iot-core.html",
        check=limits.iot_policies,
    ),
    DeployRule(
        name="role-policy",
        says=f"a role's inline policies have at most {limits.ROLE_POLICIES} characters",
        page=f"{_DOCS}/IAM/latest/UserGuide/reference_iam-quotas.html",
        check=limits.role_policies,
    ),
    DeployRule(
        name="template",
        says="CloudFormation takes the template",
        page=f"{_DOCS}/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html",
        check=limits.templates,
    ),
    DeployRule(
        name="function",
        says="Lambda takes the code and the environment",
        page=f"{_DOCS}/lambda/latest/dg/gettingstarted-limits.html",
        check=limits.functions,
    ),
    DeployRule(
        name="quotas",
        says="a new account may have as many",
        page=f"{_DOCS}/vpc/latest/userguide/amazon-vpc-limits.html",
        check=limits.counts,
    ),
    DeployRule(
        name="private-dns",
        says="an endpoint has a private name only where its service has one",
        page=f"{_DOCS}/iot/latest/developerguide/IoTCore-VPC.html",
        check=network.private_dns,
    ),
    DeployRule(
        name="iot-name",
        says="AWS IoT's endpoint has the name by which it is called",
        page=f"{_DOCS}/iot/latest/developerguide/IoTCore-VPC.html",
        check=network.iot_name,
    ),
    DeployRule(
        name="zones",
        says="every endpoint's service is offered in the subnets' zones",
        page=f"{_DOCS}/vpc/latest/privatelink/aws-services-privatelink-support.html",
        check=network.zones,
    ),
    DeployRule(
        name="service-linked-role",
        says="ECS has its role before its cluster",
        page=f"{_DOCS}/AmazonECS/latest/developerguide/using-service-linked-roles.html",
        check=tasks.service_role,
    ),
    DeployRule(
        name="retained-names",
        says="a deployment can be repeated after a failure, and after destroy",
        page=f"{_DOCS}/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html",
        check=policies.taken_names,
    ),
    DeployRule(
        name="trusted-keys",
        says="a repeated deployment signs by the keys that devices trust",
        page=f"{_DOCS}/AWSCloudFormation/latest/UserGuide/import-resources-automatically.html",
        check=policies.trusted_keys,
    ),
    DeployRule(
        name="glibc",
        says="the functions' runtime loads their libraries",
        page=f"{_DOCS}/lambda/latest/dg/lambda-runtimes.html",
        check=tasks.glibc,
    ),
    DeployRule(
        name="visibility",
        says="a queue hides a message for as long as its function works",
        page=f"{_DOCS}/lambda/latest/dg/services-sqs-configure.html",
        check=tasks.visibility,
    ),
    DeployRule(
        name="fargate-size",
        says="Fargate has tasks of that size",
        page=f"{_DOCS}/AmazonECS/latest/developerguide/fargate-tasks-services.html",
        check=tasks.fargate_sizes,
    ),
    DeployRule(
        name="cold-start",
        says="a task has time to start before its heartbeat is missed",
        page=f"{_DOCS}/step-functions/latest/dg/state-task.html",
        check=tasks.cold_start,
    ),
    DeployRule(
        name="capacity",
        says="every capacity provider that is listed places tasks",
        page=f"{_DOCS}/AmazonECS/latest/APIReference/API_CapacityProviderStrategyItem.html",
        check=tasks.no_fallback,
    ),
    DeployRule(
        name="mounts",
        says="tasks may write where they must",
        page=f"{_DOCS}/AmazonECS/latest/developerguide/bind-mounts.html",
        check=tasks.writable_mounts,
    ),
    DeployRule(
        name="image-size",
        says="images bring no CUDA",
        page="https://pytorch.org/get-started/locally/",
        check=tasks.cpu_builds,
    ),
    DeployRule(
        name="alarm-topic",
        says="alarms may publish",
        page=f"{_DOCS}/sns/latest/dg/sns-access-policy-use-cases.html",
        check=policies.alarm_topics,
    ),
    DeployRule(
        name="prefix",
        says="permissions end where another deployment begins",
        page=f"{_DOCS}/IAM/latest/UserGuide/best-practices.html#grant-least-privilege",
        check=policies.foreign_names,
    ),
    DeployRule(
        name="public",
        says="nothing is open to everybody",
        page=f"{_DOCS}/IAM/latest/UserGuide/reference_policies_elements_principal.html",
        check=policies.data_access,
    ),
)


def judge(seen: Rehearsed) -> Iterator[Finding]:
    """What breaks a rule, each once."""
    found: set[tuple[str, str, str]] = set()
    for rule in RULES:
        for where, reason in rule.check(seen):
            if (rule.name, where, reason) not in found:
                found.add((rule.name, where, reason))
                yield Finding(
                    rule=rule.name,
                    where=where,
                    reason=reason,
                    page=rule.page,
                    refuses=rule.refuses,
                )
