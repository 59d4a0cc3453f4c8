"""The SageMaker stack: the pipelines' role, registration, promotion, rollouts, schedules and, where
wanted, managed MLflow.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from pipelines.aws.metrics import FILTERS
from pipelines.aws.policies.roles import SAGEMAKER_FUNCTIONS, SAGEMAKER_ROLES
from pipelines.aws.stacks.base import base_key, signing_keys
from pipelines.aws.stacks.data import MLFLOW_EXPORT
from pipelines.aws.stacks.observability import add_filters
from pipelines.aws.stacks.stack import (
    Stack,
    architecture_parameter,
    called_by_rule,
    conducted,
    function_environment,
    mlflow_of,
)
from pipelines.aws.state_machine import rollout_definition
from pipelines.deployment import Deployment

MODEL_EVENT = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Package State Change"]}
STALE_DEVICES_RATE = "rate(15 minutes)"
MLFLOW_VERSION = "3.0"


class SageMakerStack(Stack):
    """Everything that happens to a trained model."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(
            scope, name, "MLEdgeOps: SageMaker pipelines, registry, promotion, schedules, MLflow"
        )
        key, arn = base_key(self)
        code_key = self.parameter(
            "CodeKey", "Key of the functions' code in the code bucket"
        ).value_as_string
        mlflow = mlflow_of(self)
        app = cdk.Fn.import_value(f"{self.prefix}-{MLFLOW_EXPORT}")
        d = self.deployment(
            key=arn,
            mlflow_resource=mlflow.resource(self.deployment(), app),
            **signing_keys(self),
        )
        _, lambda_architecture = architecture_parameter(self)
        tracking_uri = mlflow.uri(d, app)
        roles: dict[str, iam.CfnRole] = {role: self.role(role, d) for role in SAGEMAKER_ROLES}
        environment = function_environment(d, tracking_uri, "90")
        made = {
            name: self.function(
                name, d, roles[name], code_key, lambda_architecture, environment, key
            )
            for name in SAGEMAKER_FUNCTIONS
        }
        self._promotion(d, made["promote"])
        self._stale_devices(d, made["rollout"])
        group_of_machine = self.log_group(
            "rollout-machine", f"/aws/vendedlogs/states/{d.prefix}-rollout", key
        )
        machine = conducted(
            self,
            "RolloutMachine",
            f"{d.prefix}-rollout",
            roles["rollout-machine"].attr_arn,
            rollout_definition(d),
            group_of_machine,
        )
        machine.node.add_dependency(made["rollout"])
        scheduler.CfnScheduleGroup(self, "Schedules", name=d.schedule_group)
        add_filters(self, d, [item for item in FILTERS if item.group in SAGEMAKER_FUNCTIONS])
        self._mlflow(d, roles["mlflow"]).cfn_options.condition = mlflow.server

    def _stale_devices(self, d: Deployment, rollout: functions.CfnFunction) -> None:
        """Stale devices, such as those enrolled after a rollout, get their fleet's model on a
        schedule.
        """
        called_by_rule(
            self,
            "Latecomers",
            f"{d.prefix}-latecomers",
            rollout,
            target="rollout",
            settings={"input": "{}"},
            schedule_expression=STALE_DEVICES_RATE,
        )

    def _promotion(self, d: Deployment, promote: functions.CfnFunction) -> None:
        retries = events.CfnRule.RetryPolicyProperty(maximum_retry_attempts=20)
        called_by_rule(
            self,
            "Promotion",
            f"{d.prefix}-promote",
            promote,
            target="promote",
            settings={"retry_policy": retries},
            event_pattern=MODEL_EVENT,
        )

    def _mlflow(self, d: Deployment, role: iam.CfnRole) -> sagemaker.CfnMlflowTrackingServer:
        return sagemaker.CfnMlflowTrackingServer(
            self,
            "Mlflow",
            tracking_server_name=d.prefix,
            artifact_store_uri=f"s3://{d.bucket}/mlflow",
            role_arn=role.attr_arn,
            tracking_server_size="Small",
            mlflow_version=MLFLOW_VERSION,
            automatic_model_registration=False,
        )
