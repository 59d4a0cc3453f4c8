"""Pipeline executions as SageMaker describes them: their state, their steps, their run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from fl_runtime.run.keys import run_id
from pipelines.run.names import BELOW_STEP, LINK_STEP
from pipelines.run.option import ParameterValue

_UNDER_WAY = ("Executing", "Stopping")
_UNKNOWN = ("ResourceNotFound", "ValidationException")
"""SageMaker's error codes for an execution that it does not have."""


@dataclass(frozen=True, kw_only=True)
class FederatedRun:
    """One federated step of an execution that has started."""

    step: str
    run: str
    """Named by the callback's token."""
    outputs: dict[str, str]
    """Empty before the callback is answered."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One pipeline execution at one moment."""

    status: str
    """SageMaker's ``PipelineExecutionStatus``."""
    failure_reason: str
    steps: dict[str, dict[str, Any]]
    """The steps that have started, by name, the first to start first."""
    queue_url: str
    """The deployment's: callbacks to other queues are somebody else's."""

    @property
    def ended(self) -> bool:
        """Whether the execution has come to its end."""
        return self.status not in _UNDER_WAY

    @property
    def federated(self) -> list[FederatedRun]:
        """The federated steps, whatever their names are: they call back to the deployment's queue.
        The first to start comes first.
        """
        found = ((name, self._metadata(name, "Callback")) for name in self.steps)
        return [
            FederatedRun(step=name, run=run_id(said["CallbackToken"]), outputs=_by_name(said))
            for name, said in found
            if said.get("CallbackToken") and said.get("SqsQueueUrl") == self.queue_url
        ]

    @property
    def run(self) -> str:
        """The first federated step's run. Empty before it has started."""
        return self.federated[0].run if self.federated else ""

    @property
    def outputs(self) -> dict[str, str]:
        """The first federated step's outputs."""
        return self.federated[0].outputs if self.federated else {}

    @property
    def version(self) -> str:
        """Number of the MLflow version that a Link step of ours made. Empty without one."""
        return _by_name(self._metadata(LINK_STEP, "Lambda")).get("model_version", "")

    @property
    def model_package_arn(self) -> str:
        """The first package that was registered. Empty when none was."""
        packages = (self._metadata(name, "RegisterModel") for name in self.steps)
        return next((str(found["Arn"]) for found in packages if found.get("Arn")), "")

    @property
    def is_not_better(self) -> bool:
        """Whether the model was trained, but missed its minimum or its champion's score."""
        return BELOW_STEP in self.steps and self.status == "Failed"

    @property
    def reason(self) -> str:
        """Why the execution did not succeed: the first failed step's reason, else its own."""
        if self.status == "Succeeded":
            return ""
        failed = [
            step["FailureReason"] for step in self.steps.values() if step.get("FailureReason")
        ]
        return str(failed[0]) if failed else self.failure_reason

    def _metadata(self, step: str, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = self.steps.get(step, {}).get("Metadata", {}).get(kind, {})
        return found


def _by_name(metadata: dict[str, Any]) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in metadata.get("OutputParameters", [])}


class Executions:
    """Reads and stops pipeline executions."""

    def __init__(self, sagemaker: Any, queue_url: str = "") -> None:
        """``queue_url``: the deployment's queue, by which its steps are known."""
        self._sagemaker = sagemaker
        self._queue_url = queue_url

    def start(self, pipeline: str, parameters: Mapping[str, ParameterValue]) -> str:
        """Start an execution; returns its ARN."""
        given = [{"Name": name, "Value": str(value)} for name, value in parameters.items()]
        started = self._sagemaker.start_pipeline_execution(
            PipelineName=pipeline, PipelineParameters=given
        )
        return str(started["PipelineExecutionArn"])

    def read(self, arn: str) -> Snapshot:
        """The execution as it is now."""
        described = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return Snapshot(
            status=described["PipelineExecutionStatus"],
            failure_reason=described.get("FailureReason", ""),
            steps={step["StepName"]: step for step in self._steps(arn)},
            queue_url=self._queue_url,
        )

    def _steps(self, arn: str) -> list[dict[str, Any]]:
        """All steps that have started, the first first: SageMaker gives the newest first, and no
        more than 100 at once.
        """
        found: list[dict[str, Any]] = []
        page: dict[str, str] = {}
        while True:
            answer = self._sagemaker.list_pipeline_execution_steps(
                PipelineExecutionArn=arn, MaxResults=100, **page
            )
            found += answer["PipelineExecutionSteps"]
            if not answer.get("NextToken"):
                return list(reversed(found))
            page = {"NextToken": answer["NextToken"]}

    def ended(self, arn: str) -> bool:
        """Whether an execution has ended; one that SageMaker does not know has."""
        try:
            described = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        except ClientError as error:
            if error.response["Error"]["Code"] in _UNKNOWN:
                return True
            raise
        return described["PipelineExecutionStatus"] not in _UNDER_WAY

    def stop(self, arn: str) -> None:
        """Ask the execution to stop."""
        self._sagemaker.stop_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex
        )

    def approval(self, model_package_arn: str) -> str:
        """The approval status of a registered package."""
        described = self._sagemaker.describe_model_package(ModelPackageName=model_package_arn)
        return str(described["ModelApprovalStatus"])
