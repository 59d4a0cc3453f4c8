"""Pipelines of the kinds that AWS's documentation and samples teach, built with the SageMaker SDK.

Written from the documentation: https://docs.aws.amazon.com/sagemaker/latest/dg/define-pipeline.html.
Data sets are tiny; scripts use the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput, TransformInput
from sagemaker.lambda_helper import Lambda
from sagemaker.model import Model
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.parameter import ContinuousParameter
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner
from sagemaker.workflow.callback_step import CallbackOutput, CallbackOutputTypeEnum, CallbackStep
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import (
    ConditionGreaterThan,
    ConditionIn,
    ConditionLessThanOrEqualTo,
    ConditionNot,
    ConditionOr,
)
from sagemaker.workflow.emr_step import EMRStep, EMRStepConfig
from sagemaker.workflow.execution_variables import ExecutionVariables
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.function_step import step
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.workflow.steps import (
    CacheConfig,
    ProcessingStep,
    TrainingStep,
    TransformStep,
    TuningStep,
)

ROLE = "arn:aws:iam::123456789012:role/service-role/team"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:1"
PYTHON = ["python3"]

SCRIPTS = {
    "prepare.py": """
import argparse, csv, pathlib, random
arguments = argparse.ArgumentParser()
arguments.add_argument("--share", type=float, default=0.5)
share = arguments.parse_args().share
root = pathlib.Path("/opt/ml/processing")
rows = list(csv.reader((root / "input" / "raw.csv").open()))
random.Random(1).shuffle(rows)
at = int(len(rows) * share)
for name, part in (("train", rows[:at]), ("test", rows[at:])):
    (root / name).mkdir(parents=True, exist_ok=True)
    csv.writer((root / name / f"{name}.csv").open("w")).writerows(part)
print(f"{len(rows)} rows")
""",
    "train.py": """
import argparse, csv, json, os, pathlib
arguments = argparse.ArgumentParser()
arguments.add_argument("--shrink", type=float, default=1.0)
arguments.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
arguments.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
given = arguments.parse_args()
rows = [tuple(map(float, row)) for row in csv.reader(open(pathlib.Path(given.train, "train.csv")))]
slope = given.shrink * sum(x * y for x, y in rows) / sum(x * x for x, _ in rows)
pathlib.Path(given.model_dir, "model.json").write_text(json.dumps({"slope": slope}))
print(f"train_loss={sum((y - slope * x) ** 2 for x, y in rows) / len(rows):.6f};")
""",
    "evaluate.py": """
import csv, json, pathlib, tarfile
root = pathlib.Path("/opt/ml/processing")
with tarfile.open(root / "model" / "model.tar.gz") as archive:
    slope = json.load(archive.extractfile("model.json"))["slope"]
rows = [tuple(map(float, row)) for row in csv.reader((root / "test" / "test.csv").open())]
mse = sum((y - slope * x) ** 2 for x, y in rows) / len(rows)
(root / "evaluation").mkdir(parents=True, exist_ok=True)
(root / "evaluation" / "evaluation.json").write_text(
    json.dumps({"regression_metrics": {"mse": {"value": mse}}}))
""",
    "stand_ins.py": """
import json, pathlib
def boost(arguments):
    assert arguments["HyperParameters"]["max_depth"] == "5"
    assert list(pathlib.Path("/opt/ml/input/data/train").iterdir())
    pathlib.Path("/opt/ml/model/model.json").write_text(json.dumps({"slope": 2.0}))
def transform(arguments):
    return {"TransformOutput": arguments["TransformOutput"], "ModelName": arguments["ModelName"]}
""",
}
RAW = "\n".join(f"{x},{2 * x}" for x in range(1, 21))


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the pipelines are built with."""

    session: Any
    """The SDK's PipelineSession."""
    scripts: Path
    bucket: str

    @property
    def raw(self) -> str:
        """Where the raw data lies."""
        return f"s3://{self.bucket}/raw/raw.csv"

    def processor(self) -> ScriptProcessor:
        return ScriptProcessor(
            role=ROLE,
            image_uri=IMAGE,
            command=PYTHON,
            instance_count=1,
            instance_type="ml.m5.xlarge",
            sagemaker_session=self.session,
        )

    def prepare(self, name: str = "Prepare", **more: Any) -> ProcessingStep:
        outputs = [
            ProcessingOutput(output_name=part, source=f"/opt/ml/processing/{part}")
            for part in ("train", "test")
        ]
        arguments = self.processor().run(
            inputs=[ProcessingInput(source=self.raw, destination="/opt/ml/processing/input")],
            outputs=outputs,
            code=str(self.scripts / "prepare.py"),
            arguments=["--share", "0.8"],
        )
        return ProcessingStep(name, step_args=arguments, **more)

    def train(self, prepared: ProcessingStep, name: str = "Train", **hyperparameters: Any) -> Any:
        estimator = SKLearn(
            entry_point="train.py",
            source_dir=str(self.scripts),
            role=ROLE,
            image_uri=IMAGE,
            instance_type="ml.m5.xlarge",
            hyperparameters=hyperparameters,
            metric_definitions=[{"Name": "train:loss", "Regex": "train_loss=(.*?);"}],
            sagemaker_session=self.session,
        )
        train = output(prepared, "train")
        inputs = {"train": TrainingInput(s3_data=train, content_type="text/csv")}
        return TrainingStep(name, step_args=estimator.fit(inputs))

    def built_in(self, prepared: ProcessingStep) -> TrainingStep:
        estimator = Estimator(
            image_uri=IMAGE,
            role=ROLE,
            instance_count=1,
            instance_type="ml.m5.xlarge",
            output_path=f"s3://{self.bucket}/abalone",
            hyperparameters={"max_depth": 5, "objective": "reg:linear"},
            sagemaker_session=self.session,
        )
        inputs = {"train": TrainingInput(output(prepared, "train"), content_type="text/csv")}
        return TrainingStep("Train", step_args=estimator.fit(inputs))

    def evaluate(
        self, prepared: ProcessingStep, trained: TrainingStep
    ) -> tuple[ProcessingStep, PropertyFile]:
        report = PropertyFile(
            name="Evaluation_Report", output_name="evaluation", path="evaluation.json"
        )
        model = trained.properties.ModelArtifacts.S3ModelArtifacts
        arguments = self.processor().run(
            inputs=[
                ProcessingInput(source=model, destination="/opt/ml/processing/model"),
                ProcessingInput(
                    source=output(prepared, "test"), destination="/opt/ml/processing/test"
                ),
            ],
            outputs=[
                ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")
            ],
            code=str(self.scripts / "evaluate.py"),
        )
        return ProcessingStep("Evaluate", step_args=arguments, property_files=[report]), report

    def model(self, trained: TrainingStep) -> Model:
        return Model(
            image_uri=IMAGE,
            model_data=trained.properties.ModelArtifacts.S3ModelArtifacts,
            sagemaker_session=self.session,
            role=ROLE,
        )

    def register(self, trained: TrainingStep, group: str, statistics: Any) -> ModelStep:
        metrics = ModelMetrics(
            model_statistics=MetricsSource(content_type="application/json", s3_uri=statistics)
        )
        arguments = self.model(trained).register(
            content_types=["text/csv"],
            response_types=["text/csv"],
            inference_instances=["ml.t2.medium"],
            transform_instances=["ml.m5.xlarge"],
            model_package_group_name=group,
            approval_status="PendingManualApproval",
            model_metrics=metrics,
        )
        return ModelStep("Register", step_args=arguments)

    def pipeline(
        self, name: str, steps: list[Any], parameters: list[Any] | None = None
    ) -> Pipeline:
        return Pipeline(
            name=name,
            parameters=parameters or [],
            steps=steps,
            sagemaker_session=self.session,
        )


def output(prepared: ProcessingStep, name: str) -> Any:
    """Where an output of a Processing step lies."""
    return prepared.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri


def abalone(shop: Workshop) -> Pipeline:
    """The tutorial: prepare, train a built-in algorithm, evaluate, register when good enough."""
    bar = ParameterFloat("MseThreshold", default_value=6.0)
    prepared = shop.prepare("AbaloneProcess")
    trained = shop.built_in(prepared)
    evaluated, report = shop.evaluate(prepared, trained)
    statistics = Join(on="/", values=[output(evaluated, "evaluation"), "evaluation.json"])
    mse = JsonGet(
        step_name=evaluated.name, property_file=report, json_path="regression_metrics.mse.value"
    )
    failed = FailStep("MseTooHigh", error_message=Join(on=" ", values=["MSE is above", bar]))
    good = ConditionStep(
        name="MseCheck",
        conditions=[ConditionLessThanOrEqualTo(left=mse, right=bar)],
        if_steps=[shop.register(trained, "AbaloneModels", statistics)],
        else_steps=[failed],
    )
    return shop.pipeline("AbalonePipeline", [prepared, trained, evaluated, good], [bar])


def churn(shop: Workshop) -> Pipeline:
    """Script mode, a model that is created and registered."""
    prepared = shop.prepare()
    trained = shop.train(prepared)
    created = ModelStep("Create", step_args=shop.model(trained).create("ml.m5.large"))
    evaluated, _ = shop.evaluate(prepared, trained)
    registered = shop.register(trained, "Churn", output(evaluated, "evaluation"))
    return shop.pipeline("churn-pipeline", [registered, created, evaluated, trained, prepared])


def ablation(shop: Workshop) -> Pipeline:
    """Two trainings side by side; the metric that one logged decides."""
    prepared = shop.prepare()
    plain, shrunk = shop.train(prepared, "Plain"), shop.train(prepared, "Shrunk", shrink=0.5)
    worse = ConditionGreaterThan(
        left=shrunk.properties.FinalMetricDataList["train:loss"].Value,
        right=plain.properties.FinalMetricDataList["train:loss"].Value,
    )
    call = notify(shop, {"model": plain.properties.ModelArtifacts.S3ModelArtifacts})
    broken = FailStep("Surprise", error_message="shrinking helped")
    check = ConditionStep("Worse", conditions=[worse], if_steps=[call], else_steps=[broken])
    return shop.pipeline("ablation", [check, shrunk, plain, prepared])


def notify(shop: Workshop, inputs: dict[str, Any], **more: Any) -> LambdaStep:
    """A Lambda step, whose function answers with a text."""
    arn = "arn:aws:lambda:us-east-1:123456789012:function:notify"
    return LambdaStep(
        "Notify",
        lambda_func=Lambda(function_arn=arn, session=shop.session),
        inputs=inputs,
        outputs=[LambdaOutput("body", LambdaOutputTypeEnum.String)],
        **more,
    )


def deploy_by_lambda(shop: Workshop) -> Pipeline:
    """Execution values, joined, go to a function; a condition of every kind stands before it."""
    stage = ParameterString("Stage", default_value="beta", enum_values=["beta", "prod"])
    size = ParameterInteger("Size", default_value=3)
    conditions = [
        ConditionIn(value=stage, in_values=["beta", "prod"]),
        ConditionNot(ConditionGreaterThan(left=size, right=5)),
        ConditionOr([ConditionGreaterThan(left=size, right=5), ConditionIn(size, [3, 4])]),
    ]
    name = Join(on="-", values=[stage, ExecutionVariables.PIPELINE_EXECUTION_ID])
    call = notify(shop, {"name": name, "at": ExecutionVariables.START_DATETIME})
    check = ConditionStep("Allowed", conditions=conditions, if_steps=[call], else_steps=[])
    return shop.pipeline("deploy-by-lambda", [check], [stage, size])


def approval(shop: Workshop) -> Pipeline:
    """A person's answer by a callback, which a function gets."""
    asked = CallbackStep(
        "Ask_Someone",
        sqs_queue_url="https://sqs.us-east-1.amazonaws.com/123456789012/approvals",
        inputs={"question": "may it?"},
        outputs=[CallbackOutput("answer", CallbackOutputTypeEnum.String)],
    )
    told = notify(shop, {"answer": asked.properties.Outputs["answer"]})
    return shop.pipeline("approval", [told, asked])


def functions(shop: Workshop) -> Pipeline:
    """``@step`` functions: Python calls make the graph."""
    settings = {"role": ROLE, "image_uri": IMAGE, "instance_type": "ml.m5.large"}

    @step(name="Load_Data", **settings)
    def load(rows: int) -> list[tuple[int, int]]:
        return [(x, 2 * x) for x in range(1, rows)]

    @step(name="Fit", **settings)
    def fit(data: list[tuple[int, int]]) -> dict[str, float]:
        return {"slope": sum(y for _, y in data) / sum(x for x, _ in data)}

    rows = ParameterInteger("Rows", default_value=5)
    fitted = fit(load(rows))
    wrong = FailStep("Wrong", error_message="the slope is not two")
    check = ConditionStep(
        "IsTwo",
        conditions=[ConditionLessThanOrEqualTo(left=fitted["slope"], right=2.0)],
        if_steps=[],
        else_steps=[wrong],
    )
    return shop.pipeline("functions", [check], [rows])


def cached(shop: Workshop) -> Pipeline:
    """Caching and retry policies."""
    retries = [
        SageMakerJobStepRetryPolicy(
            exception_types=[SageMakerJobExceptionTypeEnum.INTERNAL_ERROR], max_attempts=3
        ),
        StepRetryPolicy(exception_types=[StepExceptionTypeEnum.THROTTLING], expire_after_mins=5),
    ]
    cache = CacheConfig(enable_caching=True, expire_after="PT1H")
    prepared = shop.prepare(cache_config=cache, retry_policies=retries)
    again = shop.prepare("Again", depends_on=[prepared])
    return shop.pipeline("cached", [again, prepared])


def batch(shop: Workshop) -> Pipeline:
    """A batch transform of the trained model."""
    prepared = shop.prepare()
    trained = shop.train(prepared)
    created = ModelStep("Create", step_args=shop.model(trained).create("ml.m5.large"))
    transformer = Transformer(
        model_name=created.properties.ModelName,
        instance_count=1,
        instance_type="ml.m5.large",
        output_path=f"s3://{shop.bucket}/batch",
        sagemaker_session=shop.session,
    )
    inputs = TransformInput(data=output(prepared, "test"))
    transformed = TransformStep("Batch", step_args=transformer.transform(inputs.data))
    return shop.pipeline("batch", [prepared, trained, created, transformed])


def tuning(shop: Workshop) -> Pipeline:
    """A hyperparameter search."""
    prepared = shop.prepare()
    estimator = Estimator(
        image_uri=IMAGE,
        role=ROLE,
        instance_count=1,
        instance_type="ml.m5.xlarge",
        sagemaker_session=shop.session,
    )
    tuner = HyperparameterTuner(
        estimator,
        objective_metric_name="loss",
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}],
        hyperparameter_ranges={"alpha": ContinuousParameter(0.0, 1.0)},
    )
    inputs = {"train": TrainingInput(s3_data=output(prepared, "train"))}
    return shop.pipeline("tuning", [prepared, TuningStep("Search", step_args=tuner.fit(inputs))])


def spark(shop: Workshop) -> Pipeline:
    """A Spark step on EMR."""
    config = EMRStepConfig(jar="command-runner.jar", args=["spark-submit", "s3://b/x.py"])
    emr = EMRStep("Spark", "Spark", "counts words", cluster_id="j-1", step_config=config)
    return shop.pipeline("spark", [emr])


ALL: dict[str, Callable[[Workshop], Pipeline]] = {
    made.__name__: made
    for made in (
        abalone,
        churn,
        ablation,
        deploy_by_lambda,
        approval,
        functions,
        cached,
        batch,
        tuning,
        spark,
    )
}


def branches(shop: Workshop) -> Pipeline:
    """Conditions in branches, and a step that depends on one of them: the SDK's local mode runs
    these without Docker.
    """
    first = ParameterInteger("First", default_value=1)
    second = ParameterInteger("Second", default_value=1)
    is_one = ConditionLessThanOrEqualTo(left=first, right=1)
    is_large = ConditionGreaterThan(left=second, right=1)
    leaf = ConditionStep("Leaf", conditions=[is_one], if_steps=[], else_steps=[])
    failed = FailStep("Too_Large", error_message=Join(on=" ", values=["Second is", second]))
    inner = ConditionStep("Inner", conditions=[is_large], if_steps=[failed], else_steps=[leaf])
    outer = ConditionStep("Outer", conditions=[is_one], if_steps=[inner], else_steps=[])
    after = ConditionStep("After", conditions=[is_one], depends_on=["Leaf"])
    return shop.pipeline("branches", [outer, after], [first, second])
