"""What each role and each device may do. One statement list a role; no role shares another's.

``tests/test_least_privilege.py`` holds them against the calls of recorded journeys, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.deployment import Deployment

Statement = dict[str, Any]

FUNCTIONS = {
    "dispatch": 60,
    "discover": 60,
    "conclude": 120,
    "enrol": 5,
    "link": 120,
    "refuse": 120,
    "promote": 300,
    "start": 60,
    "rollout": 300,
}
"""Lambda functions and their time limits in seconds; a provisioning hook must answer within five.
"""
EVENT_FUNCTIONS = ("promote", "start")
"""Those that EventBridge calls and does not wait for: an event they fail goes to the dead-letter
queue.
"""
SAGEMAKER_FUNCTIONS = ("link", "refuse", "promote", "start", "rollout")
"""Those of the SageMaker stack; the others belong to the data plane."""

SERVICE_OF_ROLE = {
    "server": "ecs-tasks",
    "proxy": "ecs-tasks",
    "execution": "ecs-tasks",
    "state-machine": "states",
    "iot-rule": "iot",
    "provisioning": "iot",
    "job-urls": "iot",
    "rollout-machine": "states",
    "scheduler": "scheduler",
    "pipeline": "sagemaker",
    "mlflow": "sagemaker",
    "device": "credentials.iot",
}
"""Which service takes a role; Lambda where nothing is said."""

SAGEMAKER_ROLES = (
    *SAGEMAKER_FUNCTIONS,
    "scheduler",
    "pipeline",
    "mlflow",
    "job-urls",
    "rollout-machine",
)
DATA_ROLES = (
    *(name for name in FUNCTIONS if name not in SAGEMAKER_FUNCTIONS),
    *(r for r in SERVICE_OF_ROLE if r not in SAGEMAKER_ROLES),
)

END_RUN = (
    "CreateExperiment",
    "GetExperiment",
    "GetExperimentByName",
    "CreateRun",
    "SearchRuns",
    "UpdateRun",
    "SetTag",
    "LogParam",
)
TRACK_RUN = (
    "GetRun",
    "LogBatch",
    "LogMetric",
    "LogModel",
    "LogInputs",
    "ListArtifacts",
    "GetMetricHistory",
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
"""MLflow operations as managed MLflow names them."""


def allow(actions: list[str], resources: list[str], **condition: Any) -> Statement:
    """One Allow statement; ``condition`` by operator."""
    return {
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
        **({"Condition": condition} if condition else {}),
    }


def document(statements: list[Statement]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def statements(role: str, d: Deployment) -> list[Statement]:
    """What one role may do."""
    builders: dict[str, Callable[[Deployment], list[Statement]]] = {
        "dispatch": _dispatch,
        "discover": _discover,
        "conclude": _conclude,
        "enrol": _enrol,
        "link": _link,
        "refuse": _refuse,
        "promote": _promote,
        "start": _start,
        "server": _server,
        "proxy": _proxy,
        "execution": _execution,
        "state-machine": _state_machine,
        "iot-rule": _iot_rule,
        "provisioning": _provisioning,
        "scheduler": _scheduler,
        "pipeline": _pipeline,
        "mlflow": _mlflow_server,
        "device": _device,
        "rollout": _rollout,
        "job-urls": _job_urls,
        "rollout-machine": _rollout_machine,
    }
    own = builders[role](d)
    if role in FUNCTIONS:
        return [*own, _function_logs(d, role), _traces()]
    return own


def _dispatch(d: Deployment) -> list[Statement]:
    return [
        _runs(d),
        _objects(d, "runs/*", "Get", "Put"),
        _callback(d, "Failure"),
        _mlflow(d, END_RUN),
        _key(d, "s3", "dynamodb", "sqs"),
        allow(["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], [_queue(d)]),
        allow(["states:StartExecution"], [d.state_machine]),
        allow(
            ["states:StopExecution"],
            [d.state_machine.replace(":stateMachine:", ":execution:") + ":*"],
        ),
    ]


def _discover(d: Deployment) -> list[Statement]:
    return [
        _objects(d, "runs/*", "Get", "Put"),
        _table(d, d.devices_table, "Query"),
        _table(d, d.rollouts_table, "GetItem"),
        _key(d, "s3", "dynamodb"),
    ]


def _conclude(d: Deployment) -> list[Statement]:
    return [
        _table(d, d.runs_table, "GetItem", "UpdateItem"),
        _objects(d, "runs/*", "Get"),
        _objects(d, "policy/*", "Get"),
        _missing(d),
        _callback(d, "Success", "Failure"),
        _mlflow(d, END_RUN, READ_MODELS),
        _key(d, "s3", "dynamodb"),
    ]


def _enrol(d: Deployment) -> list[Statement]:
    return [
        allow(
            ["iot:DescribeThing", "iot:ListThingPrincipals"],
            [f"arn:aws:iot:{d.region}:{d.account}:thing/*"],
        )
    ]


def _link(d: Deployment) -> list[Statement]:
    return [
        _packages(d, "Describe", "Update"),
        _mlflow(d, READ_MODELS, WRITE_MODELS, LOG_FILES),
        _objects(d, "runs/*", "Get", "Put"),
        _objects(d, "apps/*", "Get"),
        _objects(d, "policy/*", "Get"),
        _objects(d, "mlflow/*", "Put"),
        _missing(d),
        _table(d, d.devices_table, "Query"),
        _key(d, "s3", "dynamodb"),
    ]


def _refuse(d: Deployment) -> list[Statement]:
    return [_mlflow(d, END_RUN)]


def _promote(d: Deployment) -> list[Statement]:
    return [
        _packages(d, "Describe"),
        _objects(d, "runs/*", "Get"),
        _key(d, "s3", "dynamodb", "sqs"),
        _mlflow(d, READ_MODELS, TAG_MODELS),
        _dead(d),
        *_begin_rollouts(d),
    ]


def _begin_rollouts(d: Deployment) -> list[Statement]:
    """Take a fleet, write down who wanted it, start the state machine."""
    return [
        _table(d, d.rollouts_table, "GetItem", "PutItem"),
        _objects(d, "audit/*", "Get", "Put"),
        _objects(d, "policy/*", "Get"),
        _missing(d),
        allow(["states:StartExecution"], [d.rollout_machine]),
    ]


def _rollout(d: Deployment) -> list[Statement]:
    base = f"arn:aws:iot:{d.region}:{d.account}"
    return [
        _packages(d, "Describe"),
        _objects(d, "runs/*", "Get"),
        _key(d, "s3", "dynamodb"),
        _mlflow(d, READ_MODELS, WRITE_MODELS),
        _table(d, d.devices_table, "Query"),
        _table(d, d.rollouts_table, "Scan"),
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


def _job_urls(d: Deployment) -> list[Statement]:
    """AWS IoT signs the addresses in jobs' documents with it.

    https://docs.aws.amazon.com/iot/latest/developerguide/create-manage-jobs-presigned-URLs.html
    """
    return [_objects(d, "runs/*", "Get"), _key(d, "s3")]


def _rollout_machine(d: Deployment) -> list[Statement]:
    return [
        allow(["lambda:InvokeFunction"], [d.function_arn("rollout")]),
        _log_deliveries(),
        _traces(),
    ]


def _start(d: Deployment) -> list[Statement]:
    return [
        allow(
            ["sagemaker:StartPipelineExecution"],
            [f"arn:aws:sagemaker:{d.region}:{d.account}:pipeline/{d.prefix}-*"],
        ),
        _dead(d),
        _table(d, d.devices_table, "Query"),
        _key(d, "sqs", "dynamodb"),
    ]


def _server(d: Deployment) -> list[Statement]:
    return [
        _table(d, d.runs_table, "GetItem", "UpdateItem"),
        _objects(d, "runs/*", "Get", "Put"),
        _objects(d, "transient/*", "Get", "Put"),
        _objects(d, "apps/*", "Get"),
        _table(d, d.replies_table, "Query"),
        _table(d, d.devices_table, "Query"),
        _commands(d),
        _mlflow(d, END_RUN, TRACK_RUN),
        _key(d, "s3", "dynamodb"),
        _missing(d),
        _objects(d, "mlflow/*", "Get", "Put"),  # artifacts go to S3 in the caller's name
        # A task token names no resource.
        allow(
            ["states:SendTaskSuccess", "states:SendTaskFailure", "states:SendTaskHeartbeat"], ["*"]
        ),
        allow(
            [
                f"secretsmanager:{verb}"
                for verb in ("CreateSecret", "PutSecretValue", "DeleteSecret")
            ],
            [_secrets(d)],
        ),
        allow(["kms:Sign"], [d.commands_key_arn]),
    ]


def _proxy(d: Deployment) -> list[Statement]:
    return [
        _table(d, d.runs_table, "GetItem"),
        _objects(d, "transient/*", "Get", "Put"),
        _table(d, d.replies_table, "Query"),
        _commands(d),
        _key(d, "s3", "dynamodb"),
        allow(["secretsmanager:GetSecretValue"], [_secrets(d)]),
        _missing(d),
    ]


def _execution(d: Deployment) -> list[Statement]:
    """Before a task runs: its image and its log stream.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
    """
    return [
        allow(["ecr:GetAuthorizationToken"], ["*"]),  # it names no resource
        allow(
            ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
            [
                f"arn:aws:ecr:{d.region}:{d.account}:repository/{d.repository(task)}"
                for task in ("server", "proxy")
            ],
        ),
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [f"{_log_group(d, d.log_group(task))}:*" for task in ("server", "proxy")],
        ),
    ]


def _state_machine(d: Deployment) -> list[Statement]:
    """https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html, and its logging and
    tracing.
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
        _log_deliveries(),
        _traces(),
    ]


def _iot_rule(d: Deployment) -> list[Statement]:
    errors = _log_group(d, d.log_group("iot-errors"))
    return [
        _table(d, d.devices_table, "PutItem"),
        _table(d, d.replies_table, "PutItem"),
        _key(d, "dynamodb"),
        allow(
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [f"{errors}:*"],
        ),
    ]


def _provisioning(d: Deployment) -> list[Statement]:
    """What registering a thing by the provisioning template takes; AWSIoTThingsRegistration grants
    it on everything.
    """
    base = f"arn:aws:iot:{d.region}:{d.account}"
    return [
        # The certificate's policy and state name the certificate, which is not known before.
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
        allow(["iot:RegisterThing"], ["*"]),  # it names no resource
    ]


def _scheduler(d: Deployment) -> list[Statement]:
    return [allow(["lambda:InvokeFunction"], [d.function_arn("start")])]


def _pipeline(d: Deployment) -> list[Statement]:
    return [
        allow(["sqs:SendMessage"], [_queue(d)]),
        allow(["lambda:InvokeFunction"], [d.function_arn("link"), d.function_arn("refuse")]),
        _packages(d, "Create"),
        _objects(d, "runs/*", "Get"),
        _key(d, "s3", "sqs"),
        # A new app's group is made by its first package.
        allow(
            ["sagemaker:DescribeModelPackageGroup", "sagemaker:CreateModelPackageGroup"],
            [f"arn:aws:sagemaker:{d.region}:{d.account}:model-package-group/*"],
        ),
    ]


def _mlflow_server(d: Deployment) -> list[Statement]:
    """https://docs.aws.amazon.com/sagemaker/latest/dg/mlflow-create-tracking-server-iam.html"""
    return [
        _objects(d, "mlflow/*", "Get", "Put", "Delete"),
        _key(d, "s3"),
        allow(
            ["s3:ListBucket"], [f"arn:aws:s3:::{d.bucket}"], StringLike={"s3:prefix": "mlflow/*"}
        ),
        _packages(d, "Create", "Describe", "Update"),
    ]


def _device(d: Deployment) -> list[Statement]:
    """What a Greengrass core gets for its certificate: its components' artifacts and its log,
    nothing of the runs.
    """
    group = f"arn:aws:logs:{d.region}:{d.account}:log-group:/aws/greengrass/*"
    return [
        allow(["s3:GetObject"], [f"arn:aws:s3:::{d.code_bucket}/components/*"]),
        _key(d, "s3"),
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


def device_policy(d: Deployment) -> dict[str, Any]:
    """The one IoT policy of all devices: by policy variable each may use its own topics only.

    https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
    """
    thing, base = "${iot:Connection.Thing.ThingName}", f"arn:aws:iot:{d.region}:{d.account}"
    shadow = f"$aws/things/{thing}/shadow"
    # A Greengrass core's own topics are named by its thing too; a certificate is renewed by the
    # provisioning template.
    core, jobs = f"$aws/things/{thing}/greengrass", f"$aws/things/{thing}/jobs"
    enrolment = (
        "$aws/certificates/create-from-csr/json",
        f"$aws/provisioning-templates/{d.provisioning_template}/provision/json",
    )
    return document(
        [
            allow(
                ["iot:Connect"],
                [f"{base}:client/{thing}"],
                Bool={"iot:Connection.Thing.IsAttached": ["true"]},
            ),
            allow(
                ["iot:Publish"],
                [
                    f"{base}:topic/{name}"
                    for name in (
                        f"fl/*/{thing}/heartbeat",
                        f"fl/*/{thing}/reply",
                        f"{shadow}/get",
                        f"{shadow}/update",
                        f"{core}/*",
                        f"{jobs}/start-next",
                        f"{jobs}/*/update",
                        *enrolment,
                    )
                ],
            ),
            allow(
                ["iot:Subscribe"],
                [
                    f"{base}:topicfilter/{name}"
                    for name in (
                        f"fl/*/{thing}/command",
                        f"{shadow}/*",
                        f"{core}/*",
                        f"{jobs}/*",
                        *(f"{topic}/*" for topic in enrolment),
                    )
                ],
            ),
            allow(
                ["iot:Receive"],
                [
                    f"{base}:topic/{name}"
                    for name in (
                        f"fl/*/{thing}/command",
                        f"{shadow}/*",
                        f"{core}/*",
                        f"{jobs}/*",
                        *(f"{topic}/*" for topic in enrolment),
                    )
                ],
            ),
            allow(["iot:AssumeRoleWithCertificate"], [f"{base}:rolealias/{d.prefix}-device"]),
            allow(
                [
                    "greengrass:GetDeploymentConfiguration",
                    "greengrass:GetComponentVersionArtifact",
                    "greengrass:ResolveComponentCandidates",
                    "greengrass:ListThingGroupsForCoreDevice",
                ],
                [f"arn:aws:greengrass:{d.region}:{d.account}:*"],
            ),
        ]
    )


def claim_policy(d: Deployment) -> dict[str, Any]:
    """The IoT policy of the claim certificate: it may ask for a certificate of its own, and nothing
    else.

    https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
    """
    base = f"arn:aws:iot:{d.region}:{d.account}"
    topics = (
        "$aws/certificates/create-from-csr/json",
        f"$aws/provisioning-templates/{d.provisioning_template}/provision/json",
    )
    return document(
        [
            allow(["iot:Connect"], [f"{base}:client/claim-*"]),
            allow(["iot:Publish"], [f"{base}:topic/{topic}" for topic in topics]),
            allow(["iot:Subscribe"], [f"{base}:topicfilter/{topic}/*" for topic in topics]),
            allow(["iot:Receive"], [f"{base}:topic/{topic}/*" for topic in topics]),
        ]
    )


def _log_deliveries() -> Statement:
    """They name no resource: https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html"""
    deliveries = (
        "CreateLogDelivery",
        "GetLogDelivery",
        "UpdateLogDelivery",
        "DeleteLogDelivery",
        "ListLogDeliveries",
    )
    others = ("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups")
    return allow([f"logs:{verb}" for verb in (*deliveries, *others)], ["*"])


def _log_group(d: Deployment, name: str) -> str:
    return f"arn:aws:logs:{d.region}:{d.account}:log-group:{name}"


def _function_logs(d: Deployment, function: str) -> Statement:
    return allow(
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [f"{_log_group(d, d.function_log_group(function))}:*"],
    )


def _traces() -> Statement:
    """X-Ray's writes name no resource."""
    return allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], ["*"])


def _key(d: Deployment, *services: str) -> Statement:
    """The key, for these services' sake only."""
    return allow(
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [d.key],
        StringEquals={
            "kms:ViaService": [f"{service}.{d.region}.amazonaws.com" for service in services]
        },
    )


def _table(d: Deployment, table: str, *verbs: str) -> Statement:
    return allow(
        [f"dynamodb:{verb}" for verb in verbs],
        [f"arn:aws:dynamodb:{d.region}:{d.account}:table/{table}"],
    )


def _runs(d: Deployment) -> Statement:
    return _table(d, d.runs_table, "GetItem", "PutItem", "UpdateItem")


def _objects(d: Deployment, keys: str, *verbs: str) -> Statement:
    return allow([f"s3:{verb}Object" for verb in verbs], [f"arn:aws:s3:::{d.bucket}/{keys}"])


def _missing(d: Deployment) -> Statement:
    """Without it S3 answers a missing object as a forbidden one:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    return allow(["s3:ListBucket"], [f"arn:aws:s3:::{d.bucket}"])


def _queue(d: Deployment) -> str:
    return f"arn:aws:sqs:{d.region}:{d.account}:{d.queue}"


def _dead(d: Deployment) -> Statement:
    """Lambda puts an event that failed for good into the dead-letter queue in the function's name."""
    return allow(["sqs:SendMessage"], [f"arn:aws:sqs:{d.region}:{d.account}:{d.dead_queue}"])


def _callback(d: Deployment, *answers: str) -> Statement:
    executions = f"arn:aws:sagemaker:{d.region}:{d.account}:pipeline/{d.prefix}-*/execution/*"
    return allow(
        [f"sagemaker:SendPipelineExecutionStep{answer}" for answer in answers], [executions]
    )


def _packages(d: Deployment, *verbs: str) -> Statement:
    base = f"arn:aws:sagemaker:{d.region}:{d.account}"
    return allow(
        [f"sagemaker:{verb}ModelPackage" for verb in verbs],
        [f"{base}:model-package/*", f"{base}:model-package-group/*"],
    )


def _mlflow(d: Deployment, *sets: tuple[str, ...]) -> Statement:
    """Managed MLflow's data plane.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemakerwithmlflow.html
    """
    return allow([f"sagemaker-mlflow:{verb}" for verbs in sets for verb in verbs], [d.mlflow_arn])


def _commands(d: Deployment) -> Statement:
    return allow(["iot:Publish"], [f"arn:aws:iot:{d.region}:{d.account}:topic/fl/*/command"])


def _secrets(d: Deployment) -> str:
    return f"arn:aws:secretsmanager:{d.region}:{d.account}:secret:mledgeops/*"
