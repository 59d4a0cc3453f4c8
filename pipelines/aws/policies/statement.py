"""Building blocks of policies: each statement allows some actions on one kind of resource."""

from __future__ import annotations

from typing import Any

from pipelines.deployment import Deployment

Statement = dict[str, Any]

EXECUTIONS = "/execution/*"
"""What follows a pipeline's ARN in the ARN pattern of its executions."""

CALL_APP = "sagemaker:CallMlflowAppApi"
"""The one action of serverless MLflow apps beside those of all managed MLflow:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
"""
# MLflow operations, as managed MLflow names them:
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemakerwithmlflow.html
END_RUN = (
    "CreateExperiment",
    "GetExperiment",
    "GetExperimentByName",
    "CreateRun",
    "SearchRuns",
    "UpdateRun",
    "SetTag",
    "LogParam",
    "GetRun",
)
TRACK_RUN = (
    "LogBatch",
    "LogMetric",
    "LogModel",
    "LogInputs",
    "ListArtifacts",
    "GetMetricHistory",
    # MLflow 3 logs a model as an entity of its own, beside the run.
    "FinalizeLoggedModel",
    "GetLoggedModel",
    "ListLoggedModelArtifacts",
    "LogLoggedModelParams",
    "LogOutputs",
    "SetLoggedModelTags",
)
LOG_FILES = ("GetRun", "ListArtifacts")
READ_MODELS = (
    "GetRegisteredModel",
    "SearchRegisteredModels",
    "GetModelVersion",
    "SearchModelVersions",
)
TAG_MODELS = ("SetModelVersionTag",)
WRITE_MODELS = (
    "CreateRegisteredModel",
    "CreateModelVersion",
    "SetModelVersionTag",
    "SetRegisteredModelAlias",
)


def allow(actions: list[str], resources: list[str], **condition: Any) -> Statement:
    """One Allow statement. ``condition``: by IAM's operator, such as ``StringEquals``."""
    return {
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
        **({"Condition": condition} if condition else {}),
    }


def document(statements: list[Statement]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def use_table(d: Deployment, table: str, *verbs: str) -> Statement:
    """DynamoDB operations on one table."""
    return allow(
        [f"dynamodb:{verb}" for verb in verbs],
        [f"arn:aws:dynamodb:{d.region}:{d.account}:table/{table}"],
    )


def use_objects(d: Deployment, keys: str, *verbs: str) -> Statement:
    """``Get``, ``Put`` or ``Delete`` objects of the data bucket. ``keys``: a pattern."""
    return allow([f"s3:{verb}Object" for verb in verbs], [f"arn:aws:s3:::{d.bucket}/{keys}"])


def see_missing_objects(d: Deployment) -> Statement:
    """Without ListBucket, S3 answers a request for a missing object with 403 instead of 404:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    return allow(["s3:ListBucket"], [f"arn:aws:s3:::{d.bucket}"])


def use_key(d: Deployment, *services: str) -> Statement:
    """The data key, through these services only."""
    return allow(
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [d.key],
        StringEquals={
            "kms:ViaService": [f"{service}.{d.region}.amazonaws.com" for service in services]
        },
    )


def use_packages(d: Deployment, *verbs: str) -> Statement:
    """``Create``, ``Describe`` or ``Update`` model packages of any group: each app has its own."""
    base = f"arn:aws:sagemaker:{d.region}:{d.account}"
    return allow(
        [f"sagemaker:{verb}ModelPackage" for verb in verbs],
        [f"{base}:model-package/*", f"{base}:model-package-group/*"],
    )


def use_mlflow(d: Deployment, *sets: tuple[str, ...]) -> Statement:
    """Sets of operations on managed MLflow's data plane. An app asks for one action more, which
    opens its API: the others say what of it may be used.
    """
    verbs = [f"sagemaker-mlflow:{verb}" for each in sets for verb in each]
    return allow([*verbs, CALL_APP], [d.mlflow_resource or d.mlflow_arn])


def answer_callback(d: Deployment, *answers: str) -> Statement:
    """Answer the federated steps of our pipelines, and of further ones that the stack lists, with
    ``Success`` or ``Failure``.
    """
    executions = list(d.answered_executions) or [own_executions(d)]
    return allow([f"sagemaker:SendPipelineExecutionStep{answer}" for answer in answers], executions)


def own_executions(d: Deployment) -> str:
    """ARN pattern of the executions of our own pipelines."""
    return f"arn:aws:sagemaker:{d.region}:{d.account}:pipeline/{d.prefix}-*{EXECUTIONS}"


def send_commands(d: Deployment) -> Statement:
    """Publish to devices' command topics."""
    return allow(["iot:Publish"], [f"arn:aws:iot:{d.region}:{d.account}:topic/fl/*/command"])


def send_to_dead_letters(d: Deployment) -> Statement:
    """Lambda sends an event that failed for good to the dead-letter queue with the function's role:
    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """
    return allow(["sqs:SendMessage"], [f"arn:aws:sqs:{d.region}:{d.account}:{d.dead_queue}"])


def write_function_logs(d: Deployment, function: str) -> Statement:
    """A function's own log streams."""
    return allow(
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [f"{log_group_arn(d, d.function_log_group(function))}:*"],
    )


def deliver_logs() -> Statement:
    """A state machine's logs. The actions know no resource:
    https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
    """
    deliveries = (
        "CreateLogDelivery",
        "GetLogDelivery",
        "UpdateLogDelivery",
        "DeleteLogDelivery",
        "ListLogDeliveries",
    )
    others = ("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups")
    return allow([f"logs:{verb}" for verb in (*deliveries, *others)], ["*"])


def traces() -> Statement:
    """Write X-Ray traces; the actions know no resource."""
    return allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], ["*"])


def queue_arn(d: Deployment) -> str:
    """ARN of the callbacks' queue."""
    return f"arn:aws:sqs:{d.region}:{d.account}:{d.queue}"


def secrets_arn(d: Deployment) -> str:
    """ARN pattern of the runs' secrets: the certificates of gRPC between server and proxies."""
    return f"arn:aws:secretsmanager:{d.region}:{d.account}:secret:{d.prefix}/*"


def log_group_arn(d: Deployment, name: str) -> str:
    """ARN of a CloudWatch log group."""
    return f"arn:aws:logs:{d.region}:{d.account}:log-group:{name}"
