"""What each Lambda function may do, besides writing its logs and traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.aws.policies.statement import (
    END_RUN,
    LOG_FILES,
    READ_MODELS,
    TAG_MODELS,
    WRITE_MODELS,
    Statement,
    allow,
    answer_callback,
    queue_arn,
    see_missing_objects,
    send_to_dead_letters,
    use_key,
    use_mlflow,
    use_objects,
    use_packages,
    use_table,
)
from pipelines.deployment import Deployment


def _dispatch(d: Deployment) -> list[Statement]:
    return [
        use_table(d, d.runs_table, "GetItem", "PutItem", "UpdateItem"),
        use_objects(d, "runs/*", "Get", "Put"),
        answer_callback(d, "Failure"),
        use_mlflow(d, END_RUN),
        use_key(d, "s3", "dynamodb", "sqs"),
        allow(
            ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], [queue_arn(d)]
        ),
        allow(["states:StartExecution"], [d.state_machine]),
        allow(
            ["states:StopExecution"],
            [d.state_machine.replace(":stateMachine:", ":execution:") + ":*"],
        ),
    ]


def _discover(d: Deployment) -> list[Statement]:
    return [
        use_objects(d, "runs/*", "Get", "Put"),
        use_table(d, d.devices_table, "Query"),
        use_table(d, d.rollouts_table, "GetItem"),
        use_key(d, "s3", "dynamodb"),
        allow(["iot:ListThings"], ["*"]),  # the action knows no resource
    ]


def _conclude(d: Deployment) -> list[Statement]:
    return [
        use_table(d, d.runs_table, "GetItem", "UpdateItem"),
        use_objects(d, "runs/*", "Get"),
        use_objects(d, "policy/*", "Get"),
        see_missing_objects(d),
        answer_callback(d, "Success", "Failure"),
        allow(["lambda:InvokeFunction"], [d.function_arn("link")]),
        use_mlflow(d, END_RUN, READ_MODELS),
        use_key(d, "s3", "dynamodb"),
    ]


def _enrol(d: Deployment) -> list[Statement]:
    return [
        allow(
            ["iot:DescribeThing", "iot:ListThingPrincipals"],
            [f"arn:aws:iot:{d.region}:{d.account}:thing/*"],
        ),
        use_table(d, d.devices_table, "GetItem"),
        use_key(d, "dynamodb"),
    ]


def _watch(d: Deployment) -> list[Statement]:
    return [
        use_table(d, d.runs_table, "GetItem"),
        allow(["states:ListExecutions"], [d.state_machine]),
        allow(["states:SendTaskFailure"], ["*"]),  # task tokens are no resources
        allow(["ecs:StopTask"], [f"arn:aws:ecs:{d.region}:{d.account}:task/{d.cluster}/*"]),
        send_to_dead_letters(d),
        use_key(d, "dynamodb", "sqs"),
    ]


def _link(d: Deployment) -> list[Statement]:
    return [
        use_packages(d, "Describe", "Update"),
        use_mlflow(d, READ_MODELS, WRITE_MODELS, LOG_FILES),
        use_objects(d, "runs/*", "Get", "Put"),
        use_objects(d, "apps/*", "Get"),
        use_objects(d, "policy/*", "Get"),
        use_objects(d, "mlflow/*", "Put"),
        use_objects(d, "audit/*", "Get", "Put"),
        see_missing_objects(d),
        use_table(d, d.devices_table, "Query"),
        use_key(d, "s3", "dynamodb"),
        allow(["kms:Sign", "kms:Verify"], [d.records_key_arn]),
    ]


def _refuse(d: Deployment) -> list[Statement]:
    return [use_mlflow(d, END_RUN)]


def _promote(d: Deployment) -> list[Statement]:
    return [
        use_packages(d, "Describe"),
        allow(["lambda:InvokeFunction"], [d.function_arn("link")]),
        use_objects(d, "runs/*", "Get"),
        use_key(d, "s3", "dynamodb", "sqs"),
        use_mlflow(d, READ_MODELS, TAG_MODELS),
        send_to_dead_letters(d),
        *_begin_rollouts(d),
    ]


def _rollout(d: Deployment) -> list[Statement]:
    base = f"arn:aws:iot:{d.region}:{d.account}"
    return [
        use_packages(d, "Describe"),
        use_objects(d, "runs/*", "Get"),
        use_key(d, "s3", "dynamodb"),
        use_mlflow(d, READ_MODELS, WRITE_MODELS),
        use_table(d, d.devices_table, "Query"),
        use_table(d, d.rollouts_table, "Scan"),
        *_begin_rollouts(d),
        allow(["kms:Sign"], [d.models_key_arn]),
        allow(["iot:CreateJob"], [f"{base}:job/{d.prefix}-*", f"{base}:thing/*"]),
        allow(
            [
                "iot:CancelJob",
                "iot:DescribeJob",
                "iot:GetJobDocument",
                "iot:ListJobExecutionsForJob",
            ],
            [f"{base}:job/{d.prefix}-*"],
        ),
        allow(["iot:DescribeJobExecution"], [f"{base}:job/{d.prefix}-*", f"{base}:thing/*"]),
        allow(
            ["iam:PassRole"],
            [d.role("job-urls")],
            StringEquals={"iam:PassedToService": "iot.amazonaws.com"},
        ),
    ]


def _start(d: Deployment) -> list[Statement]:
    return [
        allow(
            ["sagemaker:StartPipelineExecution"],
            [f"arn:aws:sagemaker:{d.region}:{d.account}:pipeline/{d.prefix}-*"],
        ),
        send_to_dead_letters(d),
        use_table(d, d.devices_table, "Query"),
        use_key(d, "sqs", "dynamodb"),
    ]


def _begin_rollouts(d: Deployment) -> list[Statement]:
    """Verify what was linked, reserve the fleet, audit who asked for the rollout, start the state
    machine.
    """
    return [
        allow(["kms:Verify"], [d.records_key_arn]),
        use_table(d, d.rollouts_table, "GetItem", "PutItem"),
        use_objects(d, "audit/*", "Get", "Put"),
        use_objects(d, "policy/*", "Get"),
        see_missing_objects(d),
        allow(["states:StartExecution"], [d.rollout_machine]),
    ]


STATEMENTS: Mapping[str, Callable[[Deployment], list[Statement]]] = {
    "dispatch": _dispatch,
    "discover": _discover,
    "conclude": _conclude,
    "enrol": _enrol,
    "watch": _watch,
    "link": _link,
    "refuse": _refuse,
    "promote": _promote,
    "start": _start,
    "rollout": _rollout,
}
"""By role."""
