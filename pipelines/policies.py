"""What each role and each device may do. One statement list a role; no role shares another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.deployment import Deployment

Statement = dict[str, Any]

ROLES = (
    "dispatch", "discover", "conclude", "link", "refuse", "promote", "start", "server", "proxy", "state-machine", "iot-rule", "scheduler",
    "pipeline",
)  # fmt: skip

SERVICE_OF_ROLE = {
    "server": "ecs-tasks.amazonaws.com", "proxy": "ecs-tasks.amazonaws.com", "state-machine": "states.amazonaws.com",
    "iot-rule": "iot.amazonaws.com", "scheduler": "scheduler.amazonaws.com", "pipeline": "sagemaker.amazonaws.com",
}  # fmt: skip
"""Who may take a role; Lambda where nothing is said."""


def allow(actions: list[str], resources: list[str]) -> Statement:
    """One Allow statement."""
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def document(statements: list[Statement]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def trust(role: str) -> dict[str, Any]:
    """Who may assume a role."""
    service = SERVICE_OF_ROLE.get(role, "lambda.amazonaws.com")
    return document([{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}])


def statements(role: str, d: Deployment) -> list[Statement]:
    """What one role may do."""
    builders: dict[str, Callable[[], list[Statement]]] = {
        "dispatch": lambda: [
            *_logs(d, "dispatch"), _runs(d), _objects(d, "runs/*", "Get", "Put"), _queue(d), _callback(),
            allow(["states:StartExecution"], [d.state_machine]), allow(["states:StopExecution"], [_executions(d)]),
        ],
        "discover": lambda: [*_logs(d, "discover"), _objects(d, "runs/*", "Get", "Put"), _table(d, d.devices_table, "Query")],
        "conclude": lambda: [*_logs(d, "conclude"), _runs(d), _objects(d, "runs/*", "Get"), _callback()],
        "link": lambda: [*_logs(d, "link"), _packages(d)],
        "refuse": lambda: _logs(d, "refuse"),
        "promote": lambda: [
            *_logs(d, "promote"), _packages(d), _objects(d, "runs/*", "Get"),
            _table(d, d.devices_table, "Query"),
            allow(["iot:UpdateThingShadow"], [f"arn:aws:iot:{d.region}:{d.account}:thing/*"]),
        ],
        "start": lambda: [
            *_logs(d, "start"),
            allow(["sagemaker:StartPipelineExecution"], [f"arn:aws:sagemaker:{d.region}:{d.account}:pipeline/{d.prefix}-*"]),
        ],
        "server": lambda: [
            _runs(d), _objects(d, "runs/*", "Get", "Put"), _objects(d, "apps/*", "Get"), _table(d, d.replies_table, "Query"), _commands(d),
            # A task token names no resource.
            allow(["states:SendTaskSuccess", "states:SendTaskFailure", "states:SendTaskHeartbeat"], ["*"]),
            allow([f"secretsmanager:{verb}" for verb in ("CreateSecret", "PutSecretValue", "DeleteSecret")], [_secrets(d)]),
        ],
        "proxy": lambda: [
            _runs(d), _objects(d, "runs/*", "Get", "Put"), _table(d, d.replies_table, "Query"), _commands(d),
            allow(["secretsmanager:GetSecretValue"], [_secrets(d)]),
        ],
        "state-machine": lambda: [
            allow(["lambda:InvokeFunction"], [d.function_arn("discover"), d.function_arn("conclude")]),
            allow(["ecs:RunTask"], [f"arn:aws:ecs:{d.region}:{d.account}:task-definition/{d.prefix}-*"]),
            allow(["ecs:StopTask", "ecs:DescribeTasks"], [f"arn:aws:ecs:{d.region}:{d.account}:task/{d.cluster}/*"]),
            allow(["iam:PassRole"], [d.role("server"), d.role("proxy")]),
            allow(["events:PutTargets", "events:PutRule", "events:DescribeRule"],
                  [f"arn:aws:events:{d.region}:{d.account}:rule/StepFunctionsGetEventsForECSTaskRule"]),
        ],
        "iot-rule": lambda: [_table(d, d.devices_table, "PutItem"), _table(d, d.replies_table, "PutItem")],
        "scheduler": lambda: [allow(["lambda:InvokeFunction"], [d.function_arn("start")])],
        "pipeline": lambda: [
            allow(["sqs:SendMessage"], [f"arn:aws:sqs:{d.region}:{d.account}:{d.queue}"]),
            allow(["lambda:InvokeFunction"], [d.function_arn("link"), d.function_arn("refuse")]),
            _packages(d, "Create"), _objects(d, "runs/*", "Get"),
        ],
    }  # fmt: skip
    return builders[role]()


def device_policy(d: Deployment) -> dict[str, Any]:
    """The one IoT policy of all devices: by policy variable each may use its own topics only.

    https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
    """
    thing, base = "${iot:Connection.Thing.ThingName}", f"arn:aws:iot:{d.region}:{d.account}"
    shadow = f"$aws/things/{thing}/shadow"
    return document([
        {**allow(["iot:Connect"], [f"{base}:client/{thing}"]), "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": ["true"]}}},
        allow(["iot:Publish"], [f"{base}:topic/fl/*/{thing}/heartbeat", f"{base}:topic/fl/*/{thing}/reply",
                                f"{base}:topic/{shadow}/get", f"{base}:topic/{shadow}/update"]),
        allow(["iot:Subscribe"], [f"{base}:topicfilter/fl/*/{thing}/command", f"{base}:topicfilter/{shadow}/*"]),
        allow(["iot:Receive"], [f"{base}:topic/fl/*/{thing}/command", f"{base}:topic/{shadow}/*"]),
    ])  # fmt: skip


def _logs(d: Deployment, function: str) -> list[Statement]:
    group = f"arn:aws:logs:{d.region}:{d.account}:log-group:/aws/lambda/{d.function(function)}"
    return [allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [group, f"{group}:*"])]


def _table(d: Deployment, table: str, *verbs: str) -> Statement:
    return allow([f"dynamodb:{verb}" for verb in verbs], [f"arn:aws:dynamodb:{d.region}:{d.account}:table/{table}"])


def _runs(d: Deployment) -> Statement:
    return _table(d, d.runs_table, "GetItem", "PutItem", "UpdateItem")


def _objects(d: Deployment, keys: str, *verbs: str) -> Statement:
    return allow([f"s3:{verb}Object" for verb in verbs], [f"arn:aws:s3:::{d.bucket}/{keys}"])


def _queue(d: Deployment) -> Statement:
    actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    return allow(actions, [f"arn:aws:sqs:{d.region}:{d.account}:{d.queue}"])


def _callback() -> Statement:
    # SageMaker has no resource level for answering a callback step.
    return allow(["sagemaker:SendPipelineExecutionStepSuccess", "sagemaker:SendPipelineExecutionStepFailure"], ["*"])


def _packages(d: Deployment, *more: str) -> Statement:
    verbs = ["Describe", "Update", *more]
    base = f"arn:aws:sagemaker:{d.region}:{d.account}"
    return allow([f"sagemaker:{verb}ModelPackage" for verb in verbs], [f"{base}:model-package/*", f"{base}:model-package-group/*"])


def _commands(d: Deployment) -> Statement:
    return allow(["iot:Publish"], [f"arn:aws:iot:{d.region}:{d.account}:topic/fl/*/command"])


def _executions(d: Deployment) -> str:
    return d.state_machine.replace(":stateMachine:", ":execution:") + ":*"


def _secrets(d: Deployment) -> str:
    return f"arn:aws:secretsmanager:{d.region}:{d.account}:secret:mledgeops/*"
