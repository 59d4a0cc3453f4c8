"""What the steps of one execution share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.definitions.values import Scope, typed
from pipelines.local.sagemaker.executions import Callbacks, PipelineExecution
from pipelines.local.sagemaker.jobs.runner import JobRunner


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """One execution, and what its steps work with."""

    execution: PipelineExecution
    scope: Scope
    clients: Mapping[str, Any]
    """boto3 clients that act as the pipeline's role, by service."""
    callbacks: Callbacks
    save: Callable[[PipelineExecution], None]
    """Called after a change."""
    jobs: JobRunner
    history: Callable[[], Iterable[PipelineExecution]] = field(default=tuple)
    """Executions of the same pipeline, newest first, for caching."""

    def describe(self, step: Step, kind: str, metadata: dict[str, Any]) -> None:
        """Set and save what ListPipelineExecutionSteps shows of a step."""
        with self.execution.lock:
            self.execution.steps[step["Name"]]["Metadata"] = {kind: metadata}
        self.save(self.execution)


def outputs_of(step: Step, values: dict[str, Any]) -> dict[str, Any]:
    """A step's declared outputs in their types; one that was not given is an empty value."""
    return {
        output["OutputName"]: typed(values.get(output["OutputName"], ""), output["OutputType"])
        for output in step.get("OutputParameters", [])
    }


def pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    """Values as the API lists them."""
    return [{"Name": name, "Value": str(value)} for name, value in values.items()]
