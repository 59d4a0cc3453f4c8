"""What the three stacks share: parameters, names, roles, log groups, functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as steps
from constructs import Construct

from pipelines.aws.policies.roles import EVENT_FUNCTIONS, FUNCTIONS, SERVICE_OF_ROLE, statements
from pipelines.aws.policies.statement import EXECUTIONS, document, own_executions
from pipelines.aws.runtime import PYTHON
from pipelines.deployment import PREFIX_PATTERN, Deployment

KEPT = cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
"""Data outlives its stack, except what a failed creation leaves: with it the next try would find
the name taken (``RetainExceptOnCreate``).
"""
RETENTION = logs.RetentionDays.THREE_MONTHS


FUNCTION_SKIPS = {
    "CKV_AWS_115": "reserved concurrency would take from the account's pool; the queue's batches "
    "of one limit what matters",
    "CKV_AWS_117": "it calls AWS APIs only; in the VPC each would need an endpoint more",
    "CKV_AWS_173": "its environment holds names, no secret; Lambda's own key encrypts it",
}
SYNCHRONOUS = {
    "CKV_AWS_116": "its caller waits for the answer and tries again: no event can be lost"
}


def accept(resource: cdk.CfnResource, findings: Mapping[str, str]) -> None:
    """Record which of checkov's findings are accepted for a resource, and why."""
    resource.add_metadata(
        "checkov",
        {"skip": [{"id": check, "comment": reason} for check, reason in sorted(findings.items())]},
    )


class Stack(cdk.Stack):
    """A stack without the CDK's assets and bootstrap rules, so that CloudFormation alone deploys
    it.
    """

    def __init__(self, scope: Construct, name: str, description: str) -> None:
        super().__init__(
            scope, name, description=description, synthesizer=cdk.LegacyStackSynthesizer()
        )
        prefix = self.parameter(
            "Prefix",
            "Begins every name; one deployment each in an account and region",
            default="mledgeops",
        )
        self.prefix = prefix.value_as_string
        prefix.allowed_pattern = PREFIX_PATTERN
        cdk.Tags.of(self).add("mledgeops", self.prefix)

    def parameter(
        self, name: str, description: str, *, kind: str = "String", **settings: Any
    ) -> cdk.CfnParameter:
        """A parameter with a description."""
        return cdk.CfnParameter(self, name, type=kind, description=description, **settings)

    def deployment(self, **known: Any) -> Deployment:
        """The names of this deployment, as tokens."""
        return Deployment(
            account=cdk.Aws.ACCOUNT_ID, region=cdk.Aws.REGION, prefix=self.prefix, **known
        )

    def role(self, name: str, d: Deployment) -> iam.CfnRole:
        """A role with its one policy. Only its service may assume it, and only for this account."""
        service = f"{SERVICE_OF_ROLE.get(name, 'lambda')}.amazonaws.com"
        trust: dict[str, Any] = {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
        }
        if name in (
            "server",
            "proxy",
            "state-machine",
            "pipeline",
            "mlflow",
            "mlflow-app",
            "scheduler",
            "job-urls",
            "rollout-machine",
        ):
            # https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
            trust["Condition"] = {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}}
        return iam.CfnRole(
            self,
            f"Role{_camel(name)}",
            role_name=f"{self.prefix}-{name}",
            assume_role_policy_document=document([trust]),
            description=f"{name} of MLEdgeOps",
            policies=[
                iam.CfnRole.PolicyProperty(
                    policy_name="own", policy_document=document(statements(name, d))
                )
            ],
        )

    def log_group(self, identifier: str, name: str, key: kms.IKey) -> logs.LogGroup:
        """An encrypted log group that is kept for three months."""
        return logs.LogGroup(
            self,
            f"Logs{_camel(identifier)}",
            log_group_name=name,
            retention=RETENTION,
            encryption_key=key,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )

    def function(
        self,
        name: str,
        d: Deployment,
        role: iam.CfnRole,
        code_key: str,
        architecture: str,
        environment: dict[str, str],
        key: kms.IKey,
    ) -> functions.CfnFunction:
        """A Lambda function of ours and its log group."""
        group = self.log_group(f"Function-{name}", d.function_log_group(name), key)
        function = functions.CfnFunction(
            self,
            f"Function{_camel(name)}",
            function_name=d.function(name),
            role=role.attr_arn,
            runtime=f"python{PYTHON}",
            handler=f"pipelines.handlers.{name}.handler",
            timeout=FUNCTIONS[name],
            memory_size=1024,
            architectures=[architecture],
            code=functions.CfnFunction.CodeProperty(s3_bucket=d.code_bucket, s3_key=code_key),
            environment=functions.CfnFunction.EnvironmentProperty(variables=environment),
            tracing_config=functions.CfnFunction.TracingConfigProperty(mode="Active"),
        )
        if name in EVENT_FUNCTIONS:
            function.dead_letter_config = functions.CfnFunction.DeadLetterConfigProperty(
                target_arn=f"arn:aws:sqs:{d.region}:{d.account}:{d.dead_queue}"
            )
        accept(
            function,
            FUNCTION_SKIPS if name in EVENT_FUNCTIONS else {**FUNCTION_SKIPS, **SYNCHRONOUS},
        )
        function.node.add_dependency(group)
        return function


def conducted(
    stack: Stack,
    identifier: str,
    name: str,
    role: str,
    definition: dict[str, Any],
    group: logs.LogGroup,
) -> steps.CfnStateMachine:
    """A state machine with error logs and traces."""
    return steps.CfnStateMachine(
        stack,
        identifier,
        state_machine_name=name,
        role_arn=role,
        definition_string=cdk.Stack.of(stack).to_json_string(definition),
        tracing_configuration=steps.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        logging_configuration=steps.CfnStateMachine.LoggingConfigurationProperty(
            level="ERROR",
            include_execution_data=True,
            destinations=[
                steps.CfnStateMachine.LogDestinationProperty(
                    cloud_watch_logs_log_group=steps.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                        log_group_arn=group.log_group_arn
                    ),
                )
            ],
        ),
    )


def called_by_rule(
    stack: Stack,
    identifier: str,
    name: str,
    function: functions.CfnFunction,
    *,
    target: str = "",
    settings: Mapping[str, Any] | None = None,
    **rule: Any,
) -> None:
    """An EventBridge rule, by a pattern or a schedule, that calls a function.

    ``target``: the target's id in the rule. ``settings``: what the target has besides its ARN.
    """
    made = events.CfnRule(
        stack,
        identifier,
        name=name,
        state="ENABLED",
        targets=[
            events.CfnRule.TargetProperty(
                id=target or "function", arn=function.attr_arn, **(settings or {})
            )
        ],
        **rule,
    )
    functions.CfnPermission(
        stack,
        f"{identifier}Permission",
        action="lambda:InvokeFunction",
        function_name=function.attr_arn,
        principal="events.amazonaws.com",
        source_arn=made.attr_arn,
    )


def answered_executions(stack: Stack, d: Deployment) -> tuple[str, ...]:
    """The executions whose callbacks may be answered: those of our pipelines, and of the further
    ones that a parameter lists.
    """
    further = stack.parameter(
        "FurtherPipelines",
        "ARNs of other pipelines with federated steps, separated by commas; * stands for any name",
        default="",
    )
    one = r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:pipeline/[a-zA-Z0-9*-]+"
    further.allowed_pattern = f"^({one}(,{one})*)?$"
    some = cdk.CfnCondition(
        stack,
        "HasFurtherPipelines",
        expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(further.value_as_string, "")),
    )
    arns = cdk.Fn.split(",", further.value_as_string)
    patterns = cdk.Fn.join("", [",", cdk.Fn.join(f"{EXECUTIONS},", arns), EXECUTIONS])
    more = cdk.Fn.condition_if(some.logical_id, patterns, "").to_string()
    return tuple(cdk.Fn.split(",", f"{own_executions(d)}{more}"))


def architecture_parameter(stack: Stack) -> tuple[str, str]:
    """The architecture of tasks and functions: ECS's word, and Lambda's."""
    chosen = stack.parameter(
        "Architecture",
        "Of tasks and functions; ARM64 costs a fifth less",
        default="ARM64",
        allowed_values=["ARM64", "X86_64"],
    )
    arm = cdk.CfnCondition(
        stack, "Arm", expression=cdk.Fn.condition_equals(chosen.value_as_string, "ARM64")
    )
    return chosen.value_as_string, cdk.Fn.condition_if(
        arm.logical_id, "arm64", "x86_64"
    ).to_string()


def function_environment(d: Deployment, tracking_uri: str, fresh_seconds: str) -> dict[str, str]:
    """Environment variables of functions and tasks."""
    return {
        **d.environment(),
        "MLEDGEOPS_COMMANDS_KEY": d.commands_key_arn,
        "MLEDGEOPS_MODELS_KEY": d.models_key_arn,
        "MLEDGEOPS_RECORDS_KEY": d.records_key_arn,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLEDGEOPS_FRESH_SECONDS": fresh_seconds,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "FLWR_TELEMETRY_ENABLED": "0",
    }


@dataclass(frozen=True, kw_only=True)
class Mlflow:
    """Which MLflow a deployment uses. Each of the first two is a condition."""

    app: cdk.CfnCondition
    """A serverless app, in a public network."""
    server: cdk.CfnCondition
    """A managed server, in a private network, whose endpoint reaches servers only."""
    given: str
    """The URI of the operator's own; empty for a managed one."""
    public: cdk.CfnCondition
    """The tasks' network is a public one."""

    def uri(self, d: Deployment, app: str) -> str:
        """The tracking URI. ``app``: the app's ARN."""
        managed = cdk.Fn.condition_if(self.server.logical_id, d.mlflow_arn, self.given)
        return str(cdk.Fn.condition_if(self.app.logical_id, app, managed).to_string())

    def resource(self, d: Deployment, app: str) -> str:
        """The ARN that policies name."""
        return str(cdk.Fn.condition_if(self.app.logical_id, app, d.mlflow_arn).to_string())


def mlflow_of(stack: Stack) -> Mlflow:
    """The parameters that choose network and MLflow, which two stacks have."""
    given = stack.parameter(
        "MlflowTrackingUri",
        "An MLflow server that the tasks can reach; empty: a managed one in SageMaker",
        default="",
    ).value_as_string
    network = stack.parameter(
        "NetworkKind",
        "Of the tasks: private has VPC endpoints and no way to the internet; public has neither "
        "endpoints nor their cost, and is for trials",
        default="private",
        allowed_values=["private", "public"],
    )
    # The data stack has a construct of this name already.
    network.override_logical_id("Network")
    managed = cdk.CfnCondition(
        stack, "ManagedMlflow", expression=cdk.Fn.condition_equals(given, "")
    )
    public = cdk.CfnCondition(
        stack,
        "PublicNetwork",
        expression=cdk.Fn.condition_equals(network.value_as_string, "public"),
    )
    app = cdk.CfnCondition(stack, "MlflowAsApp", expression=cdk.Fn.condition_and(managed, public))
    server = cdk.CfnCondition(
        stack,
        "MlflowAsServer",
        expression=cdk.Fn.condition_and(managed, cdk.Fn.condition_not(public)),
    )
    return Mlflow(app=app, server=server, given=given, public=public)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("_", "-").split("-"))
