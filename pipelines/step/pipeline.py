"""The SageMaker pipeline of one app, built with the SageMaker Python SDK.

::

    FederatedRun (callback) -+- GoodEnough? -> Register (pending approval) -> Link (registries)
                             +- NotBetter?  -> Refuse (says why) -> BelowBar (fails with that)

A run without a model, an analysis, meets neither condition and succeeds. SageMaker knows no nested
conditions, so there are two beside each other.
The same definition deploys to AWS and runs on the local cloud. Commands use the JSON of it that the
package carries (:mod:`pipelines.run.definition`); ``make templates`` writes that anew.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pipelines.deployment import Deployment
from pipelines.run.definition import inference_image
from pipelines.run.names import (
    BELOW_STEP,
    CALLBACK_STEP,
    LINK_STEP,
    MODEL_OUTCOME,
    REFUSE_STEP,
    REGISTER_STEP,
    package_group,
    pipeline_name,
)
from pipelines.run.option import Parameter
from pipelines.run.option_table import PARAMETERS, TABLE
from pipelines.step.arguments import PublishedApp

if TYPE_CHECKING:
    from sagemaker.workflow.pipeline import Pipeline
    from sagemaker.workflow.pipeline_context import PipelineSession

BAR = "MinimumScore"
"""The parameter that the pipeline itself reads: the score that a model must reach."""


def build(
    deployment: Deployment, app_name: str, session: PipelineSession, *, image: str = ""
) -> Pipeline:
    """The pipeline of one app. ``image``: the container that would serve the model (SageMaker wants
    one).
    """
    with warnings.catch_warnings():
        # The SDK warns that steps are recorded, not run, which is what we want.
        warnings.simplefilter("ignore")
        return _build(deployment, app_name, session, image or inference_image(deployment.region))


def _build(deployment: Deployment, app_name: str, session: PipelineSession, image: str) -> Pipeline:
    from sagemaker.workflow.condition_step import ConditionStep
    from sagemaker.workflow.conditions import (
        ConditionEquals,
        ConditionGreaterThanOrEqualTo,
        ConditionLessThan,
        ConditionOr,
    )
    from sagemaker.workflow.pipeline import Pipeline

    from pipelines.step.federated_step import FederatedStep  # it imports the SDK

    parameters = {parameter.name: _parameter(parameter) for parameter in PARAMETERS}
    options = {_option(p.argument): parameters[p.name] for p in PARAMETERS if p.argument}
    app = PublishedApp(digest=options.pop("app"), name=options.pop("app_name"))
    run = FederatedStep(CALLBACK_STEP, app=app, deployment=deployment, **options)
    outputs = run.properties.Outputs
    register = run.register(REGISTER_STEP, group=package_group(app_name), image=image)
    link = _link(_function(deployment, session, "link"), register)
    refuse = _refuse(_function(deployment, session, "refuse"), outputs, parameters[BAR])
    is_model = ConditionEquals(left=outputs["outcome"], right=MODEL_OUTCOME)
    score, bars = outputs["score"], (parameters[BAR], outputs["champion_score"])
    reached = [ConditionGreaterThanOrEqualTo(left=score, right=bar) for bar in bars]
    missed = ConditionOr([ConditionLessThan(left=score, right=bar) for bar in bars])
    good = ConditionStep(
        "GoodEnough",
        conditions=[is_model, *reached],
        if_steps=[register, link],
        else_steps=[],
    )
    worse = ConditionStep(
        "NotBetter",
        conditions=[is_model, missed],
        if_steps=[refuse, _below(refuse)],
        else_steps=[],
    )
    return Pipeline(
        pipeline_name(deployment, app_name),
        parameters=list(parameters.values()),
        steps=[run, good, worse],
        sagemaker_session=session,
    )


def _function(deployment: Deployment, session: PipelineSession, name: str) -> Any:
    """A Lambda function of ours. Without our session the SDK would make one of the user's own."""
    from sagemaker.lambda_helper import Lambda

    return Lambda(function_arn=deployment.function_arn(name), session=session)


def _parameter(parameter: Parameter) -> Any:
    from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString

    kinds = {str: ParameterString, int: ParameterInteger, float: ParameterFloat}
    return kinds[type(parameter.default)](parameter.name, default_value=parameter.default)


def _option(argument: str) -> str:
    """The step's option that sets a callback argument alone."""
    names = {e.parameters[0].argument: e.name for e in TABLE if len(e.parameters) == 1}
    return names.get(argument, argument)


def _link(function: Any, register: Any) -> Any:
    from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    return LambdaStep(
        LINK_STEP,
        lambda_func=function,
        inputs={"model_package_arn": register.properties.ModelPackageArn},
        outputs=[LambdaOutput("model_version", LambdaOutputTypeEnum.String)],
    )


def _refuse(function: Any, outputs: Any, minimum_score: Any) -> Any:
    from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    names = ("run", "mlflow_run_id", "metric", "value", "score", "champion_score")
    return LambdaStep(
        REFUSE_STEP,
        lambda_func=function,
        inputs={**{name: outputs[name] for name in names}, "minimum_score": minimum_score},
        outputs=[LambdaOutput("reason", LambdaOutputTypeEnum.String)],
    )


def _below(refuse: Any) -> Any:
    """Fails with the sentence of the Refuse step, which also went to MLflow."""
    from sagemaker.workflow.fail_step import FailStep
    from sagemaker.workflow.functions import Join

    # A Fail step's message takes references only within a Join:
    # https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-fail
    message = Join(on="", values=[refuse.properties.Outputs["reason"]])
    return FailStep(BELOW_STEP, error_message=message, depends_on=[refuse])
