"""The data plane: network, storage, tasks, functions, state machine, devices, metrics."""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as steps
from constructs import Construct

from pipelines.aws import state_machine
from pipelines.aws.mlflow_address import MLFLOW_OUTPUT
from pipelines.aws.policies.roles import DATA_ROLES, FUNCTIONS, SAGEMAKER_FUNCTIONS
from pipelines.aws.stacks.base import accept_bucket, base_key, signing_keys
from pipelines.aws.stacks.devices import Devices
from pipelines.aws.stacks.network import Network
from pipelines.aws.stacks.observability import Observability
from pipelines.aws.stacks.stack import (
    KEPT,
    Mlflow,
    Stack,
    accept,
    answered_executions,
    architecture_parameter,
    called_by_rule,
    conducted,
    function_environment,
    mlflow_of,
)
from pipelines.deployment import Deployment

MLFLOW_ROLE = "mlflow-app"
MLFLOW_EXPORT = "mlflow"
"""Under this name the SageMaker stack imports the ARN of managed MLflow."""
TASKS = {"server": ("2048", "8192"), "proxy": ("256", "512")}
"""Fargate tasks: CPU units and memory in MiB."""
TRANSIENT_DAYS = 30
"""How long devices' updates, transferred weights and checkpoints are kept. Models and round records
stay.
"""


class DataStack(Stack):
    """Everything that a run needs, from the callback to its answer."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name, "MLEdgeOps: data plane")
        self.key, self.key_arn = base_key(self)
        code_key = self.parameter(
            "CodeKey", "Key of the functions' code in the code bucket"
        ).value_as_string
        self.image_tag = self.parameter(
            "ImageTag", "Tag of the server's and the proxy's image", default="latest"
        ).value_as_string
        self.architecture, lambda_architecture = architecture_parameter(self)
        fresh = self.parameter(
            "FreshSeconds",
            "A device not heard of for so long is not asked",
            kind="Number",
            default=90,
            min_value=5,
        ).value_as_string
        d, tracking_uri = self._named()
        self.task_environment = function_environment(d, tracking_uri, fresh)
        self.roles: dict[str, iam.CfnRole] = {
            role: self.role(role, d) for role in DATA_ROLES if role != MLFLOW_ROLE
        }
        self._storage(d)
        self.queue, self.dead = self._queue(d)
        self._tasks(d)
        made = {
            name: self.function(
                name,
                d,
                self.roles[name],
                code_key,
                lambda_architecture,
                self.task_environment,
                self.key,
            )
            for name in FUNCTIONS
            if name not in SAGEMAKER_FUNCTIONS
        }
        functions.CfnEventSourceMapping(
            self,
            "Callbacks",
            event_source_arn=self.queue.queue_arn,
            function_name=made["dispatch"].ref,
            batch_size=1,
            function_response_types=["ReportBatchItemFailures"],
        )
        machine = self._state_machine(d)
        machine.node.add_dependency(made["discover"], made["conclude"])
        errors = self.log_group("iot-errors", d.log_group("iot-errors"), self.key)
        Devices(self, "Devices", d, self.roles, made["enrol"], errors)
        self._watch(d, made["watch"])
        Observability(self, "Observability", d, self.key, self.dead, machine)

    def _named(self) -> tuple[Deployment, str]:
        """The deployment with what its network and MLflow are called, and the tracking URI."""
        mlflow = mlflow_of(self)
        app = self._mlflow_app(mlflow)
        network = Network(self, "Network", self.prefix, mlflow)
        d = self.deployment(
            key=self.key_arn,
            mlflow_resource=mlflow.resource(self.deployment(), app),
            public_addresses=network.public_addresses,
            subnets=network.subnets,
            security_groups=network.security_groups,
            answered_executions=answered_executions(self, self.deployment()),
            **signing_keys(self),
        )
        tracking_uri = mlflow.uri(d, app)
        cdk.CfnOutput(self, "Subnets", value=cdk.Fn.join(",", list(network.subnets)))
        cdk.CfnOutput(self, "SecurityGroup", value=network.security_groups[0])
        cdk.CfnOutput(self, MLFLOW_OUTPUT, value=tracking_uri)
        # Exported whether there is an app or not: the other stack imports it in any case.
        cdk.CfnOutput(
            self,
            "MlflowApp",
            value=d.mlflow_resource,
            export_name=f"{self.prefix}-{MLFLOW_EXPORT}",
        )
        cdk.Validations.of(self).acknowledge(
            cdk.Acknowledgment(
                id="CloudFormation-Validate::W1001",
                reason="the condition of the app is the condition of each reference to it",
            )
        )
        return d, tracking_uri

    def _mlflow_app(self, mlflow: Mlflow) -> str:
        """A serverless MLflow app, where one is wanted; its ARN, which holds an id of AWS's."""
        d = self.deployment(key=self.key_arn)
        role = self.role(MLFLOW_ROLE, d)
        app = sagemaker.CfnMlflowApp(
            self,
            "MlflowAppResource",
            name=d.prefix,
            artifact_store_uri=f"s3://{d.bucket}/mlflow",
            role_arn=role.attr_arn,
            model_registration_mode="AutoModelRegistrationDisabled",
        )
        for resource in (role, app):
            resource.cfn_options.condition = mlflow.app
        return str(app.attr_arn)

    def _watch(self, d: Deployment, watch: functions.CfnFunction) -> None:
        """The watch hears of each server that has stopped, and looks for silent ones each minute.
        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
        """
        servers = f"arn:aws:ecs:{d.region}:{d.account}:task-definition/{d.task_family('server')}:"
        pattern = {
            "source": ["aws.ecs"],
            "detail-type": ["ECS Task State Change"],
            "detail": {"lastStatus": ["STOPPED"], "taskDefinitionArn": [{"prefix": servers}]},
        }
        called_by_rule(self, "Stopped", f"{d.prefix}-stopped", watch, event_pattern=pattern)
        called_by_rule(
            self, "Watch", f"{d.prefix}-watch", watch, schedule_expression="rate(1 minute)"
        )

    def _storage(self, d: Deployment) -> None:
        bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=d.bucket,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            removal_policy=KEPT,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="transient",
                    expiration=cdk.Duration.days(TRANSIENT_DAYS),
                    prefix="transient/",
                ),
                s3.LifecycleRule(
                    id="versions",
                    noncurrent_version_expiration=cdk.Duration.days(TRANSIENT_DAYS),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(2),
                ),
            ],
        )
        accept_bucket(bucket)
        for identifier, name, keys, kept in (
            ("Devices", d.devices_table, ("fleet", "device"), False),
            ("Replies", d.replies_table, ("reply_key", "device"), False),
            ("Runs", d.runs_table, ("run",), True),
            ("Rollouts", d.rollouts_table, ("fleet", "rollout"), True),
        ):
            attributes = [
                dynamodb.Attribute(name=key, type=dynamodb.AttributeType.STRING) for key in keys
            ]
            table = dynamodb.Table(
                self,
                f"Table{identifier}",
                table_name=name,
                partition_key=attributes[0],
                sort_key=attributes[1] if len(keys) > 1 else None,
                billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
                time_to_live_attribute="expires_at",
                encryption_key=self.key,
                encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
                removal_policy=KEPT,
                point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                    point_in_time_recovery_enabled=kept
                ),
                deletion_protection=kept,
            )
            if not kept:
                accept(
                    cast(dynamodb.CfnTable, table.node.default_child),
                    {"CKV_AWS_28": "its rows expire in days; devices write them again"},
                )

    def _queue(self, d: Deployment) -> tuple[sqs.Queue, sqs.Queue]:
        """Callbacks, and the dead letters.

        The visibility timeout is six times the function's:
        https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        """
        dead = sqs.Queue(
            self,
            "DeadLetters",
            queue_name=d.dead_queue,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self.key,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        queue = sqs.Queue(
            self,
            "CallbackQueue",
            queue_name=d.queue,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self.key,
            enforce_ssl=True,
            visibility_timeout=cdk.Duration.seconds(6 * FUNCTIONS["dispatch"]),
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=5, queue=dead),
        )
        return queue, dead

    def _tasks(self, d: Deployment) -> None:
        ecs.CfnCluster(
            self,
            "Cluster",
            cluster_name=d.cluster,
            capacity_providers=["FARGATE", "FARGATE_SPOT"],
            cluster_settings=[
                ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enabled")
            ],
        )
        environment = [
            ecs.CfnTaskDefinition.KeyValuePairProperty(name=key, value=value)
            for key, value in sorted(self.task_environment.items())
        ]
        for task, (cpu, memory) in TASKS.items():
            container = self._container(d, task, environment)
            ecs.CfnTaskDefinition(
                self,
                f"Task{task.capitalize()}",
                family=d.task_family(task),
                requires_compatibilities=["FARGATE"],
                network_mode="awsvpc",
                cpu=cpu,
                memory=memory,
                task_role_arn=self.roles[task].attr_arn,
                execution_role_arn=self.roles["execution"].attr_arn,
                container_definitions=[container],
                volumes=[ecs.CfnTaskDefinition.VolumeProperty(name="scratch")],
                runtime_platform=ecs.CfnTaskDefinition.RuntimePlatformProperty(
                    cpu_architecture=self.architecture, operating_system_family="LINUX"
                ),
            )

    def _container(
        self,
        d: Deployment,
        task: str,
        environment: list[ecs.CfnTaskDefinition.KeyValuePairProperty],
    ) -> ecs.CfnTaskDefinition.ContainerDefinitionProperty:
        group = self.log_group(f"Task-{task}", d.log_group(task), self.key)
        registry = f"{cdk.Aws.ACCOUNT_ID}.dkr.ecr.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}"
        image = f"{registry}/{d.repository(task)}:{self.image_tag}"
        return ecs.CfnTaskDefinition.ContainerDefinitionProperty(
            name=task,
            image=image,
            essential=True,
            command=["python", "-m", f"fl_runtime.{task}"],
            environment=environment,
            readonly_root_filesystem=True,
            user="10001",
            stop_timeout=30,
            mount_points=[
                ecs.CfnTaskDefinition.MountPointProperty(
                    source_volume="scratch",
                    container_path="/tmp",  # noqa: S108  # a mount in the container
                    read_only=False,
                )
            ],
            linux_parameters=ecs.CfnTaskDefinition.LinuxParametersProperty(
                init_process_enabled=True
            ),
            log_configuration=ecs.CfnTaskDefinition.LogConfigurationProperty(
                log_driver="awslogs",
                options={
                    "awslogs-group": group.log_group_name,
                    "awslogs-region": cdk.Aws.REGION,
                    "awslogs-stream-prefix": task,
                },
            ),
        )

    def _state_machine(self, d: Deployment) -> steps.CfnStateMachine:
        group = self.log_group("state-machine", f"/aws/vendedlogs/states/{d.prefix}-run", self.key)
        return conducted(
            self,
            "StateMachine",
            f"{d.prefix}-run",
            self.roles["state-machine"].attr_arn,
            state_machine.definition(d),
            group,
        )
