"""Processing and Training steps, and steps of other kinds for which there is a stand-in."""

from __future__ import annotations

import time
from typing import Any

from pipelines.local.sagemaker.definitions.graph import Step
from pipelines.local.sagemaker.jobs.names import job_arn, job_name
from pipelines.local.sagemaker.jobs.runner import Job
from pipelines.local.sagemaker.steps.caching import cache_key, cached
from pipelines.local.sagemaker.steps.context import StepContext

_KINDS = {"Processing": "ProcessingJob", "Training": "TrainingJob", "Transform": "TransformJob"}
"""What the step's metadata and job are called, by the step's type."""


def run_job(step: Step, context: StepContext) -> dict[str, Any]:
    """Run a job to its end, or take the result of an earlier execution.

    Raises:
        StepFailed: The job failed.
        JobLost: What ran it was killed.
        ExecutionStopped: The execution was stopped.

    """
    execution = context.execution
    kind = str(_KINDS.get(step["Type"], step["Type"]))
    given = step.get("Arguments", {}).get(f"{kind}Name")
    prefix = context.scope.resolve(given) if given else None
    name = job_name(execution.arn, step["Name"], prefix)
    arguments = context.scope.resolve(step.get("Arguments", {}), {f"{kind}Name": name})
    key = cache_key(step, arguments)
    if key and (hit := cached(step, key, context.history(), time.time())):
        arn, found = hit
        with execution.lock:
            execution.steps[step["Name"]]["CacheHitResult"] = {"SourcePipelineExecutionArn": arn}
        context.describe(step, kind, found["Metadata"])
        properties: dict[str, Any] = found["Properties"]
    else:
        metadata = {"Arn": job_arn(execution.arn, step["Type"], name)}
        context.describe(step, kind, metadata)
        job = Job(
            name=name,
            arn=metadata["Arn"],
            pipeline=execution.pipeline,
            step=step["Name"],
            kind=step["Type"],
            arguments=arguments,
        )
        properties = context.jobs.run(job, execution.stopping)
        result = {"Key": key, "At": time.time(), "Properties": properties, "Metadata": metadata}
        with execution.lock:
            execution.results[step["Name"]] = result
    for file in step.get("PropertyFiles", []):
        uri = _output_uri(properties, file["OutputName"])
        path = f"{uri.rstrip('/')}/{file['FilePath']}"
        context.scope.property_files[f"{step['Name']}.{file['PropertyFileName']}"] = path
    return properties


def _output_uri(properties: dict[str, Any], name: str) -> str:
    for output in properties.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if output["OutputName"] == name:
            return str(output["S3Output"]["S3Uri"])
    raise ValueError(f"A property file belongs to the output {name}, which the step does not have.")
