"""A team's own pipeline with federated steps in it, built with whichever SDK is installed.

Version 2 and 3 have the same steps in other modules; ``python tests/sdk3.py`` records what version
3 makes of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3

from pipelines.deployment import Deployment
from pipelines.step.arguments import PublishedApp
from pipelines.step.federated_step import FederatedStep
from pipelines.step.sdk import module

D = Deployment(account="111122223333", region="us-east-1")
RECORDED = Path(__file__).with_name("mixed_pipeline_sdk3.json")
APP = PublishedApp(digest="a" * 64, name="wind_farm")
SESSION = boto3.Session(region_name=D.region, aws_access_key_id="x", aws_secret_access_key="x")


def definition() -> dict[str, Any]:
    """Lambda -> two federated steps side by side -> a third of the better settings -> condition ->
    register, or fail.
    """
    parameters, conditions = module("parameters"), module("conditions")
    rounds = parameters.ParameterInteger("Rounds", default_value=3)
    rate = parameters.ParameterFloat("Rate", default_value=0.1)
    farm = parameters.ParameterString("Farm", default_value="park")
    limit = parameters.ParameterFloat("WorstRmse", default_value=150.0)
    prepare = _prepare(farm)
    plain, tuned = (
        FederatedStep(
            name,
            app=APP,
            deployment=D,
            fleet=farm,
            rounds=rounds,
            settings=settings,
            depends_on=[prepare],
        )
        for name, settings in (
            ("Plain", {"batch-size": 32}),
            ("Tuned", {"batch-size": 32, "learning-rate": rate, "strategy.eta": 0.5}),
        )
    )
    again = FederatedStep(
        "train_again",
        app=APP,
        deployment=D,
        fleet=prepare.properties.Outputs["fleet"],
        min_devices=2,
        max_devices=0,
        resume_from=tuned.properties.Outputs["run"],
        display_name="Train on",
        depends_on=[plain],
    )
    value = again.properties.Outputs["value"]
    join = module("functions").Join(on=" ", values=["RMSE", value, "is above", limit])
    fail = module("fail_step").FailStep("TooBad", error_message=join)
    good = module("condition_step").ConditionStep(
        "GoodEnough",
        conditions=[conditions.ConditionLessThanOrEqualTo(left=value, right=limit)],
        if_steps=[again.register("Register", image="111122223333.dkr.ecr/serve:1")],
        else_steps=[fail],
    )
    made = module("pipeline").Pipeline(
        name="team-wind",
        parameters=[rounds, rate, farm, limit],
        steps=[prepare, plain, tuned, again, good],
        sagemaker_session=_session(),
    )
    found: dict[str, Any] = json.loads(made.definition())
    return found


def _prepare(farm: Any) -> Any:
    steps = module("lambda_step")
    arn = f"arn:aws:lambda:{D.region}:{D.account}:function:prepare"
    try:
        from sagemaker.core.lambda_helper import Lambda
    except ModuleNotFoundError:
        from sagemaker.lambda_helper import Lambda
    return steps.LambdaStep(
        "Prepare",
        lambda_func=Lambda(function_arn=arn, session=_session()),
        inputs={"farm": farm},
        outputs=[steps.LambdaOutput("fleet", steps.LambdaOutputTypeEnum.String)],
    )


def _session() -> Any:
    context = module("pipeline_context")
    quiet = {"SchemaVersion": "1.0", "SageMaker": {}}
    return context.PipelineSession(
        boto_session=SESSION, default_bucket=D.bucket, sagemaker_config=quiet
    )
