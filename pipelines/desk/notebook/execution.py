"""A pipeline of the user's own on a cloud: published with the apps of its federated steps, started,
followed step by step.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from fl_runtime.run.keys import app_key, run_id
from pipelines.desk.access import Door
from pipelines.desk.notebook.run import Run, attached
from pipelines.desk.notebook.show import box
from pipelines.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

POLL_SECONDS = 0.5
UNDER_WAY = ("Executing", "Stopping")


class Execution:
    """An execution of a SageMaker pipeline. Its properties are read anew each time."""

    def __init__(self, door: Door, arn: str) -> None:
        self._door = door
        self.arn = arn

    @property
    def status(self) -> str:
        """SageMaker's: ``Executing``, ``Stopping``, ``Succeeded``, ``Failed`` or ``Stopped``."""
        return str(self._described()["PipelineExecutionStatus"])

    @property
    def error(self) -> str:
        """Why it did not succeed: the first failed step's reason, else its own. Empty otherwise."""
        if self.status in (*UNDER_WAY, "Succeeded"):
            return ""
        reasons = [step["FailureReason"] for step in self._steps() if step.get("FailureReason")]
        return str(reasons[0]) if reasons else str(self._described().get("FailureReason", ""))

    @property
    def steps(self) -> pd.DataFrame:
        """The steps that have started, in that order: type, status, seconds, reason."""
        import pandas as pd

        rows = [
            {
                "step": step["StepName"],
                "type": next(iter(step.get("Metadata", {})), ""),
                "status": step["StepStatus"],
                "seconds": _seconds(step),
                "reason": step.get("FailureReason", ""),
            }
            for step in self._steps()
        ]
        columns = ["step", "type", "status", "seconds", "reason"]
        return pd.DataFrame(rows, columns=columns).set_index("step")

    @property
    def runs(self) -> list[Run]:
        """The federated runs of its steps, as far as they have begun."""
        tokens = [
            step["Metadata"]["Callback"].get("CallbackToken", "")
            for step in self._steps()
            if "Callback" in step.get("Metadata", {})
        ]
        found = []
        for token in filter(None, tokens):
            try:
                found.append(attached(self._door, run_id(token)))
            except UsageError:  # a callback of somebody else's, or one that nobody took yet
                continue
        return found

    def outputs(self, step: str) -> dict[str, str]:
        """What a callback or Lambda step gave.

        Raises:
            UsageError: The step has not started, or has no outputs.

        """
        metadata: dict[str, Any] = next(
            (found.get("Metadata", {}) for found in self._steps() if found["StepName"] == step), {}
        )
        for kind in ("Callback", "Lambda"):
            if kind in metadata:
                given = metadata[kind].get("OutputParameters", [])
                return {item["Name"]: item["Value"] for item in given}
        raise UsageError(f"The step {step!r} has given no outputs.")

    def wait(self, *, progress: bool = True) -> Execution:
        """Wait until it has ended, and return it. ``progress``: print each step as it ends."""
        told: set[tuple[str, str]] = set()
        while True:
            ended = self.status not in UNDER_WAY
            for step in self._steps():
                mark = (step["StepName"], step["StepStatus"])
                if mark not in told and progress:
                    print(f"{mark[0]}: {mark[1]}", flush=True)  # noqa: T201  # a notebook shows it
                told.add(mark)
            if ended:
                return self
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to stop; :meth:`wait` returns when it has."""
        self._door.open().client("sagemaker").stop_pipeline_execution(
            PipelineExecutionArn=self.arn, ClientRequestToken=uuid.uuid4().hex
        )

    def __repr__(self) -> str:
        return f"<Execution {self.arn.rsplit(':pipeline/', 1)[-1]}: {self.status}>"

    def _repr_html_(self) -> str:
        fields = {step["StepName"]: step["StepStatus"] for step in self._steps()}
        return box(self.arn.rsplit(":pipeline/", 1)[-1], self.status, fields, self.error)

    def _described(self) -> dict[str, Any]:
        sagemaker = self._door.open().client("sagemaker")
        found: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=self.arn)
        return found

    def _steps(self) -> list[dict[str, Any]]:
        pages = self._door.open().client("sagemaker").get_paginator("list_pipeline_execution_steps")
        found = [
            step
            for page in pages.paginate(PipelineExecutionArn=self.arn)
            for step in page["PipelineExecutionSteps"]
        ]
        return sorted(found, key=lambda step: step["StartTime"])


def executed(
    door: Door, pipeline: Any, name: str, parameters: Mapping[str, Any], role: str = ""
) -> Execution:
    """Create or update a pipeline, upload the apps of its federated steps, and start it.

    Raises:
        UsageError: It has no name, or SageMaker refuses it, with its reason.

    """
    name, definition = _definition(pipeline, name)
    access = door.stay()
    for app in _apps(pipeline):
        access.objects.put(app_key(app.digest()), app.bundle())
    given = [{"Name": key, "Value": str(value)} for key, value in parameters.items()]
    wanted = {
        "PipelineName": name,
        "PipelineDefinition": definition,
        "RoleArn": role or access.cloud.deployment.pipeline_role,
    }
    sagemaker = access.client("sagemaker")
    try:
        try:
            sagemaker.update_pipeline(**wanted)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ResourceNotFound", "ValidationException"):
                raise
            sagemaker.create_pipeline(**wanted)
        started = sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=given)
    except ClientError as error:
        reason = error.response["Error"]["Message"]
        raise UsageError(f"SageMaker refuses the pipeline {name}: {reason}") from error
    return Execution(door, started["PipelineExecutionArn"])


def _definition(pipeline: Any, name: str) -> tuple[str, str]:
    """A pipeline's name and its definition as JSON."""
    if isinstance(pipeline, Mapping):
        text = json.dumps(pipeline)
    elif isinstance(pipeline, str):
        text = pipeline
    elif hasattr(pipeline, "definition"):
        name, text = name or str(pipeline.name), str(pipeline.definition())
    else:
        raise UsageError(
            f"{type(pipeline).__name__} is no pipeline: give the SDK's Pipeline, or a definition "
            "as a dict or JSON text."
        )
    if not name:
        raise UsageError("A definition does not say the pipeline's name: give name=...")
    return name, text


def _apps(pipeline: Any) -> Iterator[Any]:
    """The Flower apps of a pipeline's federated steps, in branches too."""
    steps = list(getattr(pipeline, "steps", []) or [])
    while steps:
        step = steps.pop()
        steps += [
            *(getattr(step, "if_steps", None) or []),
            *(getattr(step, "else_steps", None) or []),
        ]
        app = getattr(step, "app", None)
        if app is not None and hasattr(app, "bundle"):
            yield app


def _seconds(step: Mapping[str, Any]) -> float | None:
    if "EndTime" not in step:
        return None
    seconds: float = (step["EndTime"] - step["StartTime"]).total_seconds()
    return round(seconds, 1)
