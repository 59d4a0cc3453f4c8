"""The API's actions on pipeline executions, answered by the engine."""

from __future__ import annotations

import json
import time
from typing import Any

from pipelines.local.sagemaker.definitions.checks import parsed
from pipelines.local.sagemaker.engine import Engine
from pipelines.local.sagemaker.executions import PipelineExecution
from pipelines.local.sagemaker.moto_actions import Action, answered_by, invalid, written


class ExecutionActions:
    """Each public method is a moto action: it takes moto's response object."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        """None until the service has started."""

    def start_pipeline_execution(self, response: Any) -> dict[str, Any]:
        """StartPipelineExecution."""
        name = response.params["PipelineName"].rsplit("/", 1)[-1]
        pipeline = response.sagemaker_backend.describe_pipeline(name)
        if response.params.get("SelectiveExecutionConfig"):
            raise invalid("The local cloud runs whole pipelines: it knows no selective execution.")
        given = _values(response.params.get("PipelineParameters"))
        try:
            definition = parsed(pipeline["PipelineDefinition"])
            with written():
                execution = self._running().start(
                    name,
                    definition,
                    given,
                    role=pipeline.get("RoleArn") or "",
                    parallel=_parallel(response),
                )
        except ValueError as error:
            raise invalid(str(error)) from error
        return {"PipelineExecutionArn": execution.arn}

    def describe_pipeline_execution(self, response: Any) -> dict[str, Any]:
        """DescribePipelineExecution."""
        execution = _find(self._running(), response)
        described = {
            "PipelineArn": execution.arn.split("/execution/")[0],
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionDisplayName": execution.arn.rsplit("/", 1)[1],
            "PipelineExecutionStatus": execution.status,
            "CreationTime": execution.started_at,
            "LastModifiedTime": time.time(),
        }
        return described | ({"FailureReason": execution.reason} if execution.reason else {})

    def stop_pipeline_execution(self, response: Any) -> dict[str, Any]:
        """StopPipelineExecution."""
        execution = _find(self._running(), response)
        with written():
            self._running().stop(execution)
        return {"PipelineExecutionArn": execution.arn}

    def list_pipeline_executions(self, response: Any) -> dict[str, Any]:
        """ListPipelineExecutions."""
        name = response.params["PipelineName"].rsplit("/", 1)[-1]
        summaries = [
            {
                "PipelineExecutionArn": execution.arn,
                "StartTime": execution.started_at,
                "PipelineExecutionStatus": execution.status,
            }
            for execution in self._running().of_pipeline(name)
        ]
        return {"PipelineExecutionSummaries": summaries}

    def list_pipeline_execution_steps(self, response: Any) -> dict[str, Any]:
        """ListPipelineExecutionSteps, newest first."""
        steps = _find(self._running(), response).described_steps()
        if response.params.get("SortOrder") != "Ascending":
            steps.reverse()
        return {"PipelineExecutionSteps": steps}

    def describe_pipeline_definition_for_execution(self, response: Any) -> dict[str, Any]:
        """DescribePipelineDefinitionForExecution."""
        execution = _find(self._running(), response)
        return {
            "PipelineDefinition": json.dumps(execution.definition),
            "CreationTime": execution.started_at,
        }

    def list_pipeline_parameters_for_execution(self, response: Any) -> dict[str, Any]:
        """ListPipelineParametersForExecution."""
        parameters = _find(self._running(), response).parameters
        pairs = [{"Name": name, "Value": str(value)} for name, value in parameters.items()]
        return {"PipelineParameters": pairs}

    def send_pipeline_execution_step_success(self, response: Any) -> dict[str, Any]:
        """SendPipelineExecutionStepSuccess."""
        outputs = _values(response.params.get("OutputParameters"))
        return _answer(self._running(), response, outputs, None)

    def send_pipeline_execution_step_failure(self, response: Any) -> dict[str, Any]:
        """SendPipelineExecutionStepFailure."""
        reason = response.params.get("FailureReason") or "no reason was given"
        return _answer(self._running(), response, None, reason)

    def described_job(self, field: str, original: Action) -> Action:
        """DescribeTrainingJob and the like: jobs of our executions, else moto's own answer."""

        def describe(response: Any) -> Any:
            engine = self.engine
            found = engine.result_of(field, response.params[field]) if engine is not None else None
            return original(response) if found is None else answered_by(lambda _: found)(response)

        return describe

    def _running(self) -> Engine:
        if self.engine is None:
            raise invalid("The local SageMaker is starting.")
        return self.engine


ACTIONS = tuple(
    name
    for name in vars(ExecutionActions)
    if not name.startswith("_") and name != ExecutionActions.described_job.__name__
)
"""Names of the actions, which are moto's."""
JOBS = {
    "describe_processing_job": "ProcessingJobName",
    "describe_training_job": "TrainingJobName",
}
"""Actions that describe a job, and the field that names it."""


def _parallel(response: Any) -> int:
    """Steps at once, as the request or the pipeline has it; 0: all that can."""
    given = response.params.get("ParallelismConfiguration")
    if given is None:
        name = response.params["PipelineName"].rsplit("/", 1)[-1]
        pipelines = getattr(response.sagemaker_backend, "pipelines", {})
        given = getattr(pipelines.get(name), "parallelism_configuration", None)
    return int((given or {}).get("MaxParallelExecutionSteps", 0))


def _find(engine: Engine, response: Any) -> PipelineExecution:
    arn = response.params["PipelineExecutionArn"]
    execution = engine.get(arn)
    if execution is None:
        raise invalid(f"There is no pipeline execution {arn}.")
    return execution


def _answer(
    engine: Engine, response: Any, outputs: dict[str, str] | None, failure: str | None
) -> dict[str, Any]:
    if not engine.callbacks.answer(response.params["CallbackToken"], outputs, failure):
        raise invalid("The callback token is unknown or has been answered.")
    return {}


def _values(pairs: list[dict[str, str]] | None) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in pairs or []}
