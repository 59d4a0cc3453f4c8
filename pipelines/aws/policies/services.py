"""What AWS services may do for us: state machines, pipelines, schedules, managed MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.aws.policies.statement import (
    Statement,
    allow,
    deliver_logs,
    queue_arn,
    traces,
    use_key,
    use_objects,
    use_packages,
)
from pipelines.deployment import Deployment


def _state_machine(d: Deployment) -> list[Statement]:
    """Runs ECS tasks, and writes logs and traces:
    https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
    """
    ecs = f"arn:aws:ecs:{d.region}:{d.account}"
    return [
        allow(["lambda:InvokeFunction"], [d.function_arn("discover"), d.function_arn("conclude")]),
        allow(
            ["ecs:RunTask"],
            [f"{ecs}:task-definition/{d.task_family(task)}:*" for task in ("server", "proxy")],
        ),
        allow(["ecs:StopTask", "ecs:DescribeTasks"], [f"{ecs}:task/{d.cluster}/*"]),
        allow(
            ["iam:PassRole"],
            [d.role("server"), d.role("proxy"), d.role("execution")],
            StringEquals={"iam:PassedToService": "ecs-tasks.amazonaws.com"},
        ),
        allow(
            ["events:PutTargets", "events:PutRule", "events:DescribeRule"],
            [f"arn:aws:events:{d.region}:{d.account}:rule/StepFunctionsGetEventsForECSTaskRule"],
        ),
        deliver_logs(),
        traces(),
    ]


def _rollout_machine(d: Deployment) -> list[Statement]:
    return [
        allow(["lambda:InvokeFunction"], [d.function_arn("rollout")]),
        deliver_logs(),
        traces(),
    ]


def _scheduler(d: Deployment) -> list[Statement]:
    return [allow(["lambda:InvokeFunction"], [d.function_arn("start")])]


def _pipeline(d: Deployment) -> list[Statement]:
    return [
        allow(["sqs:SendMessage"], [queue_arn(d)]),
        allow(["lambda:InvokeFunction"], [d.function_arn("link"), d.function_arn("refuse")]),
        use_packages(d, "Create"),
        use_objects(d, "runs/*", "Get"),
        use_key(d, "s3", "sqs"),
        # RegisterModel creates a new app's group.
        allow(
            ["sagemaker:DescribeModelPackageGroup", "sagemaker:CreateModelPackageGroup"],
            [f"arn:aws:sagemaker:{d.region}:{d.account}:model-package-group/*"],
        ),
    ]


def _mlflow_server(d: Deployment) -> list[Statement]:
    """Managed MLflow keeps artifacts in S3:
    https://docs.aws.amazon.com/sagemaker/latest/dg/mlflow-create-tracking-server-iam.html
    """
    return [
        use_objects(d, "mlflow/*", "Get", "Put", "Delete"),
        use_key(d, "s3"),
        allow(
            ["s3:ListBucket"], [f"arn:aws:s3:::{d.bucket}"], StringLike={"s3:prefix": "mlflow/*"}
        ),
        use_packages(d, "Create", "Describe", "Update"),
    ]


STATEMENTS: Mapping[str, Callable[[Deployment], list[Statement]]] = {
    "state-machine": _state_machine,
    "rollout-machine": _rollout_machine,
    "scheduler": _scheduler,
    "pipeline": _pipeline,
    "mlflow": _mlflow_server,
    "mlflow-app": _mlflow_server,
}
"""By role."""
