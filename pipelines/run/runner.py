"""Starts a run as a SageMaker pipeline execution, follows it, and reports it. The same on both
clouds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import msgspec

from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.keys import app_key, model_key, run_id, run_prefix
from fl_runtime.run.records import RoundRecord
from pipelines.deployment import Deployment
from pipelines.run import pipeline as definition
from pipelines.run.options import RunPlan

POLL_SECONDS = 0.4
CALLBACK_STEP = "FederatedRun"
REGISTER_STEP = "Register-RegisterModel"
LINK_STEP = "Link"
STATUS = {"Succeeded": "Succeeded", "Stopped": "Stopped"}


class RunReport(msgspec.Struct, kw_only=True):
    """What ``mledgeops run --json`` prints."""

    run_id: str = ""
    status: str = "Failed"
    reason: str = ""
    app: str = ""
    devices: int = 0
    rounds: list[RoundRecord] = []
    tables: dict[str, dict[str, list[Any]]] = {}
    seconds: float = 0.0
    metric: str = ""
    value: float | None = None
    ended: str = ""
    """Why it ended before its last round."""
    mlflow_run_id: str = ""
    model_version: str = ""
    model_package_arn: str = ""
    approval: str = ""
    execution_arn: str = ""
    pipeline_execution_arn: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values; the reason only when there is one, the devices' rows left to MLflow."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        for record in values["rounds"]:
            del record["devices"]
        for name in ("reason", "ended"):
            if not values[name]:
                del values[name]
        return values


@dataclass(frozen=True)
class Started:
    """A pipeline execution under way."""

    arn: str
    plan: RunPlan
    at: float


class Runner:
    """Runs plans on one deployment; clients come from the environment."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._sleep = sleep
        self._clock = clock
        self._sagemaker = client("sagemaker")
        self._objects = S3Objects(client("s3"), deployment.bucket)

    def start(self, plan: RunPlan) -> Started:
        """Upload the app, create or update the app's pipeline, start it with the plan's parameters."""
        self._objects.put(app_key(plan.app_digest), plan.app.bundle())
        session = definition.session(self._deployment, boto3.Session())
        pipeline = definition.build(self._deployment, plan.app.name, session)
        definition.publish(pipeline, self._deployment)
        execution = pipeline.start(parameters=plan.parameters())
        return Started(str(execution.arn), plan, self._clock())

    def follow(
        self, started: Started, check: Callable[[], None] = lambda: None
    ) -> Iterator[RoundRecord]:
        """Yield each round as it is finished, until the pipeline has ended. ``check`` is called at
        each look and may raise.
        """
        seen = 0
        while True:
            check()
            ended = self.ended(started.arn)
            for record in self.rounds(self.run_of(started.arn), seen):
                seen = record.round
                yield record
            if ended:
                return
            self._sleep(POLL_SECONDS)

    def ended(self, arn: str) -> bool:
        """Whether a pipeline execution has come to its end."""
        return self._status(arn)["PipelineExecutionStatus"] not in ("Executing", "Stopping")

    def stop(self, started: Started, seconds: float) -> bool:
        """Stop the pipeline and wait until it has; False when it takes longer."""
        self._sagemaker.stop_pipeline_execution(
            PipelineExecutionArn=started.arn, ClientRequestToken="s" * 32
        )
        deadline = self._clock() + seconds
        while self._clock() < deadline:
            if self.ended(started.arn):
                return True
            self._sleep(POLL_SECONDS)
        return False

    def report(self, started: Started) -> RunReport:
        """All that is known of a run that has ended."""
        status, steps = self._status(started.arn), self._steps(started.arn)
        run = self.run_of(started.arn)
        outputs = {
            item["Name"]: item["Value"]
            for item in _metadata(steps, CALLBACK_STEP, "Callback").get("OutputParameters", [])
        }
        link = _metadata(steps, LINK_STEP, "Lambda").get("OutputParameters", [])
        state = self._state(run)
        report = RunReport(
            run_id=run,
            status=STATUS.get(status["PipelineExecutionStatus"], "Failed"),
            app=started.plan.app.name,
            devices=started.plan.devices,
            reason=self._reason(status, steps),
            rounds=list(self.rounds(run, 0)),
            tables=self._tables(run),
            seconds=round(self._clock() - started.at, 2),
            metric=outputs.get("metric", ""),
            ended=outputs.get("ended", "-").removeprefix("-"),
            value=float(outputs["value"]) if "value" in outputs else None,
            mlflow_run_id=outputs.get("mlflow_run_id") or state.get("mlflow_run_id", ""),
            model_version=f"{definition.package_group(started.plan.app.name)}/{link[0]['Value']}"
            if link
            else "",
            model_package_arn=_metadata(steps, REGISTER_STEP, "RegisterModel").get("Arn", ""),
            execution_arn=outputs.get("execution_arn") or state.get("execution_arn", ""),
            pipeline_execution_arn=started.arn,
        )
        if report.model_package_arn:
            report.approval = self._sagemaker.describe_model_package(
                ModelPackageName=report.model_package_arn
            )["ModelApprovalStatus"]
        return report

    def rounds(self, run: str, after: int) -> Iterator[RoundRecord]:
        """A run's finished rounds above a number."""
        if not run:
            return
        for key in self._objects.keys(f"{run_prefix(run)}rounds/"):  # not a dict
            if int(key.rsplit("/", 1)[1].removesuffix(".json")) > after:
                yield msgspec.json.decode(self._objects.get(key), type=RoundRecord)

    def _tables(self, run: str) -> dict[str, dict[str, list[Any]]]:
        prefix = model_key(run, "tables/") if run else ""
        keys = self._objects.keys(prefix) if run else []
        return {
            key.rsplit("/", 1)[1].removesuffix(".json"): msgspec.json.decode(self._objects.get(key))
            for key in keys
        }

    def _reason(self, status: dict[str, Any], steps: dict[str, Any]) -> str:
        if status["PipelineExecutionStatus"] == "Succeeded":
            return ""
        failed = [step["FailureReason"] for step in steps.values() if step.get("FailureReason")]
        return str(failed[0] if failed else status.get("FailureReason", ""))

    def _state(self, run: str) -> dict[str, str]:
        key = {"run": {"S": run or "-"}}
        item = (
            client("dynamodb")
            .get_item(TableName=self._deployment.runs_table, Key=key)
            .get("Item", {})
        )
        return {name: value["S"] for name, value in item.items() if "S" in value}

    def _status(self, arn: str) -> dict[str, Any]:
        described: dict[str, Any] = self._sagemaker.describe_pipeline_execution(
            PipelineExecutionArn=arn
        )
        return described

    def _steps(self, arn: str) -> dict[str, Any]:
        steps = self._sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)[
            "PipelineExecutionSteps"
        ]
        return {step["StepName"]: step for step in steps}

    def run_of(self, arn: str) -> str:
        """The run of a pipeline execution, named by its callback's token; empty before there is
        one.
        """
        token = _metadata(self._steps(arn), CALLBACK_STEP, "Callback").get("CallbackToken", "")
        return run_id(token) if token else ""


def _metadata(steps: dict[str, Any], step: str, kind: str) -> dict[str, Any]:
    """What a step says of itself, empty for one that did not run."""
    found: dict[str, Any] = steps.get(step, {}).get("Metadata", {}).get(kind, {})
    return found
