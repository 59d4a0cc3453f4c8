"""What the ECS tasks may do, and what ECS may do to start them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.aws.policies.statement import (
    END_RUN,
    TRACK_RUN,
    Statement,
    allow,
    log_group_arn,
    secrets_arn,
    see_missing_objects,
    send_commands,
    use_key,
    use_mlflow,
    use_objects,
    use_table,
)
from pipelines.deployment import Deployment


def _server(d: Deployment) -> list[Statement]:
    return [
        use_table(d, d.runs_table, "GetItem", "UpdateItem"),
        use_objects(d, "runs/*", "Get", "Put"),
        use_objects(d, "transient/*", "Get", "Put", "Delete"),
        use_objects(d, "apps/*", "Get"),
        use_table(d, d.replies_table, "Query"),
        use_table(d, d.devices_table, "Query"),
        send_commands(d),
        use_mlflow(d, END_RUN, TRACK_RUN),
        use_key(d, "s3", "dynamodb"),
        see_missing_objects(d),
        use_objects(d, "mlflow/*", "Get", "Put"),  # MLflow's client uploads artifacts itself
        # Task tokens are no resources.
        allow(
            ["states:SendTaskSuccess", "states:SendTaskFailure", "states:SendTaskHeartbeat"], ["*"]
        ),
        allow(
            [
                f"secretsmanager:{verb}"
                for verb in ("CreateSecret", "PutSecretValue", "DeleteSecret")
            ],
            [secrets_arn(d)],
        ),
        allow(["kms:Sign"], [d.commands_key_arn]),
    ]


def _proxy(d: Deployment) -> list[Statement]:
    return [
        use_table(d, d.runs_table, "GetItem"),
        use_objects(d, "transient/*", "Get", "Put"),
        use_table(d, d.replies_table, "Query"),
        use_table(d, d.devices_table, "Query"),  # blocked devices
        send_commands(d),
        use_key(d, "s3", "dynamodb"),
        allow(["secretsmanager:GetSecretValue"], [secrets_arn(d)]),
        see_missing_objects(d),
    ]


def _execution(d: Deployment) -> list[Statement]:
    """What ECS needs before a task runs: its image and its log stream.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
    """
    return [
        allow(["ecr:GetAuthorizationToken"], ["*"]),  # the action knows no resource
        allow(
            ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
            [
                f"arn:aws:ecr:{d.region}:{d.account}:repository/{d.repository(task)}"
                for task in ("server", "proxy")
            ],
        ),
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [f"{log_group_arn(d, d.log_group(task))}:*" for task in ("server", "proxy")],
        ),
    ]


STATEMENTS: Mapping[str, Callable[[Deployment], list[Statement]]] = {
    "server": _server,
    "proxy": _proxy,
    "execution": _execution,
}
"""By role."""
