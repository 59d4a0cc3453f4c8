"""The SageMaker pipeline, built with the SageMaker Python SDK: one federated run, a bar, a
registration.

FederatedRun (callback) -> GoodEnough? -> Register (pending approval) -> Link both registries,
else Refuse -> BelowBar (fails with the numbers). The same object deploys to AWS and runs on the
local cloud.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fl_runtime.run.scoring import NO_CHAMPION
from pipelines.deployment import Deployment
from registry.mlflow_registry import DIGEST_TAG, RUN_TAG, SCORE_TAG
from registry.sagemaker_registry import EXECUTION, METRIC, MLFLOW_MODEL, MLFLOW_RUN, PENDING

os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")

if TYPE_CHECKING:
    import boto3
    from sagemaker.workflow.pipeline import Pipeline
    from sagemaker.workflow.pipeline_context import PipelineSession

NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""Without it Pipeline.create and start send the account id and exception texts to a host of the
SDK's.
"""

STRING_OUTPUTS = (
    "run",
    "rounds",
    "participants",
    "metric",
    "model_data",
    "evaluation",
    "model_digest",
    "mlflow_run_id",
    "mlflow_model_id",
    "execution_arn",
    "score_text",
    "ended",
)
FLOAT_OUTPUTS = ("value", "score", "champion_score")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One pipeline parameter: its SageMaker name, the callback argument it becomes, and what it
    means.
    """

    name: str
    argument: str
    default: str | int | float
    meaning: str


PARAMETERS = (
    Parameter(
        name="AppDigest",
        argument="app",
        default="0" * 64,
        meaning="SHA-256 of the Flower app's bundle in S3 (apps/DIGEST.zip)",
    ),
    Parameter(name="AppName", argument="app_name", default="app", meaning="the app's name"),
    Parameter(
        name="Fleet",
        argument="fleet",
        default="default",
        meaning="the fleet whose devices take part",
    ),
    Parameter(name="NumRounds", argument="num_rounds", default=3, meaning="rounds of training"),
    Parameter(
        name="MinDevices",
        argument="min_devices",
        default=1,
        meaning="the run waits until so many devices are eligible",
    ),
    Parameter(
        name="MaxDevices",
        argument="max_devices",
        default=0,
        meaning="at most so many take part; 0: all",
    ),
    Parameter(
        name="DevicesPerProxy",
        argument="devices_per_proxy",
        default=100,
        meaning="devices a proxy task serves; 0: the server does it",
    ),
    Parameter(
        name="Strategy",
        argument="strategy",
        default="-",
        meaning="a stock Flower strategy; -: the app's own",
    ),
    Parameter(
        name="StrategyParameters",
        argument="strategy_params",
        default="{}",
        meaning="JSON object of the strategy's parameters",
    ),
    Parameter(
        name="RunConfig",
        argument="run_config",
        default="{}",
        meaning="JSON object that overrides the app's configuration",
    ),
    Parameter(
        name="Metric",
        argument="metric",
        default="-",
        meaning="the evaluate metric that judges the model; -: the app's",
    ),
    Parameter(
        name="Goal",
        argument="goal",
        default="-",
        meaning="minimize or maximize; -: known by the metric's name",
    ),
    Parameter(
        name="Seed", argument="seed", default=0, meaning="seed of the server's random choices"
    ),
    Parameter(
        name="PhaseSeconds",
        argument="phase_seconds",
        default=600.0,
        meaning="seconds the devices have for one phase",
    ),
    Parameter(
        name="DeadlineSeconds",
        argument="deadline_seconds",
        default=86400.0,
        meaning="seconds the run may wait for enough devices",
    ),
    Parameter(
        name="Quorum", argument="quorum", default=1, meaning="valid updates that a round needs"
    ),
    Parameter(
        name="QuorumFraction",
        argument="quorum_fraction",
        default=0.0,
        meaning="the same as a share of the devices that a round wants",
    ),
    Parameter(
        name="OverSelection",
        argument="over_selection",
        default=1.3,
        meaning="so many times the wanted devices are asked; the first count",
    ),
    Parameter(
        name="Selection",
        argument="selection",
        default="-",
        meaning="random, least-seen or stratified:LABEL; -: as the strategy does",
    ),
    Parameter(
        name="Require",
        argument="require",
        default="{}",
        meaning="JSON object of what devices must report: idle, power, free-memory, labels",
    ),
    Parameter(
        name="Target",
        argument="target",
        default="-",
        meaning="the value of the metric at which the run ends early; -: none",
    ),
    Parameter(
        name="MaxSeconds",
        argument="max_seconds",
        default=0.0,
        meaning="seconds all rounds together may take; 0: any",
    ),
    Parameter(
        name="MaxCost",
        argument="max_cost",
        default=0.0,
        meaning="USD the rounds may cost, as estimated; 0: any",
    ),
    Parameter(
        name="ResumeFrom",
        argument="resume_from",
        default="-",
        meaning="the run whose last finished round this one goes on from; -: none",
    ),
    Parameter(
        name="Experiment",
        argument="experiment",
        default="mledgeops",
        meaning="the MLflow experiment",
    ),
)
BAR = Parameter(
    name="MinimumScore",
    argument="",
    default=NO_CHAMPION,
    meaning="the score (the metric, negated when less is better) a model must reach",
)


def package_group(app_name: str) -> str:
    """Model package group, and MLflow registered model, of an app."""
    return "".join(c if c.isalnum() else "-" for c in app_name).strip("-")[:60] or "app"


def session(deployment: Deployment, boto_session: boto3.Session) -> PipelineSession:
    """A SageMaker session that only records steps; SageMaker's telemetry is switched off."""
    logging.getLogger("sagemaker").setLevel(logging.ERROR)
    # it writes to stdout where it found no configuration
    logging.getLogger("sagemaker.config").disabled = True
    from sagemaker.workflow.pipeline_context import PipelineSession

    return PipelineSession(
        boto_session=boto_session, default_bucket=deployment.bucket, sagemaker_config=NO_TELEMETRY
    )


def build(
    deployment: Deployment, app_name: str, pipeline_session: PipelineSession, *, image: str = ""
) -> Pipeline:
    """The pipeline of one app. ``image``: the container that would serve the model (SageMaker wants
    one).
    """
    with warnings.catch_warnings():
        # the SDK warns that steps are recorded, not run: that is the point
        warnings.simplefilter("ignore")
        return _build(
            deployment, app_name, pipeline_session, image or inference_image(deployment.region)
        )


def publish(pipeline: Pipeline, deployment: Deployment) -> None:
    """Create the pipeline, or update it to this definition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK warns that it leaves our Lambda functions alone
        pipeline.upsert(role_arn=deployment.pipeline_role)


def inference_image(region: str) -> str:
    """AWS's PyTorch inference container for a region."""
    from sagemaker import image_uris

    uri: str = image_uris.retrieve(
        "pytorch",
        region,
        version="2.6.0",
        py_version="py312",
        image_scope="inference",
        instance_type="ml.m5.large",
    )
    return uri


def _build(
    deployment: Deployment, app_name: str, pipeline_session: PipelineSession, image: str
) -> Pipeline:
    from sagemaker.workflow.condition_step import ConditionStep
    from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
    from sagemaker.workflow.fail_step import FailStep
    from sagemaker.workflow.functions import Join
    from sagemaker.workflow.pipeline import Pipeline

    parameters = {parameter.name: _parameter(parameter) for parameter in (*PARAMETERS, BAR)}
    run = _callback(deployment, parameters)
    outputs = run.properties.Outputs
    register = _register(pipeline_session, app_name, outputs, image)
    functions = _Functions(deployment, pipeline_session)
    link = _link(functions, register)
    numbers = [
        "The model's",
        outputs["metric"],
        "gives a score of",
        outputs["score"],
        "where the bar is",
        parameters[BAR.name],
    ]
    refuse = _refuse(functions, outputs, parameters)
    message = Join(on=" ", values=[*numbers, "and the champion has", outputs["champion_score"]])
    below = FailStep("BelowBar", error_message=message, depends_on=[refuse])
    conditions = [
        ConditionGreaterThanOrEqualTo(left=outputs["score"], right=parameters[BAR.name]),
        ConditionGreaterThanOrEqualTo(left=outputs["score"], right=outputs["champion_score"]),
    ]
    good = ConditionStep(
        "GoodEnough", conditions=conditions, if_steps=[register, link], else_steps=[refuse, below]
    )
    name = f"{deployment.prefix}-{package_group(app_name)}"
    return Pipeline(
        name,
        parameters=list(parameters.values()),
        steps=[run, good],
        sagemaker_session=pipeline_session,
    )


@dataclass(frozen=True)
class _Functions:
    """Our Lambda functions as the SDK wants them; without a session of ours it would read the
    user's own.
    """

    deployment: Deployment
    session: Any

    def get(self, name: str) -> Any:
        from sagemaker.lambda_helper import Lambda

        return Lambda(function_arn=self.deployment.function_arn(name), session=self.session)


def _parameter(parameter: Parameter) -> Any:
    from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString

    kinds = {str: ParameterString, int: ParameterInteger, float: ParameterFloat}
    return kinds[type(parameter.default)](parameter.name, default_value=parameter.default)


def _callback(deployment: Deployment, parameters: dict[str, Any]) -> Any:
    from sagemaker.workflow.callback_step import (
        CallbackOutput,
        CallbackOutputTypeEnum,
        CallbackStep,
    )

    outputs = [CallbackOutput(name, CallbackOutputTypeEnum.String) for name in STRING_OUTPUTS]
    outputs += [CallbackOutput(name, CallbackOutputTypeEnum.Float) for name in FLOAT_OUTPUTS]
    inputs = {parameter.argument: parameters[parameter.name] for parameter in PARAMETERS}
    return CallbackStep(
        "FederatedRun", sqs_queue_url=deployment.queue_url, inputs=inputs, outputs=outputs
    )


def _register(pipeline_session: PipelineSession, app_name: str, outputs: Any, image: str) -> Any:
    from sagemaker.model import Model
    from sagemaker.model_metrics import MetricsSource, ModelMetrics
    from sagemaker.workflow.model_step import ModelStep

    model = Model(
        image_uri=image,
        model_data=outputs["model_data"],
        sagemaker_session=pipeline_session,
        role="unused",
    )
    return ModelStep(
        "Register",
        step_args=model.register(
            content_types=["application/json"],
            response_types=["application/json"],
            inference_instances=["ml.m5.large"],
            transform_instances=["ml.m5.large"],
            model_package_group_name=package_group(app_name),
            approval_status=PENDING,
            model_metrics=ModelMetrics(
                model_statistics=MetricsSource(
                    content_type="application/json", s3_uri=outputs["evaluation"]
                )
            ),
            customer_metadata_properties={
                RUN_TAG: outputs["run"],
                DIGEST_TAG: outputs["model_digest"],
                SCORE_TAG: outputs["score_text"],
                METRIC: outputs["metric"],
                EXECUTION: outputs["execution_arn"],
                MLFLOW_RUN: outputs["mlflow_run_id"],
                MLFLOW_MODEL: outputs["mlflow_model_id"],
            },
        ),
    )


def _refuse(functions: _Functions, outputs: Any, parameters: dict[str, Any]) -> Any:
    from sagemaker.workflow.lambda_step import LambdaStep

    inputs = {
        "run": outputs["run"],
        "mlflow_run_id": outputs["mlflow_run_id"],
        "metric": outputs["metric"],
        "score": outputs["score"],
        "champion_score": outputs["champion_score"],
        "minimum_score": parameters[BAR.name],
    }
    return LambdaStep("Refuse", lambda_func=functions.get("refuse"), inputs=inputs)


def _link(functions: _Functions, register: Any) -> Any:
    from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    return LambdaStep(
        "Link",
        lambda_func=functions.get("link"),
        inputs={"model_package_arn": register.properties.ModelPackageArn},
        outputs=[LambdaOutput("model_version", LambdaOutputTypeEnum.String)],
    )
