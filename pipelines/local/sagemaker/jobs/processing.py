"""Processing jobs: inputs, command and outputs as SageMaker has them.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.local.sagemaker.jobs import data
from pipelines.local.sagemaker.jobs.container import ML
from pipelines.local.sagemaker.jobs.script_mode import resources
from pipelines.local.sagemaker.outcomes import StepFailed

MANIFEST_LIMIT = 8 * 1024 * 1024


def why_not(step: dict[str, Any]) -> str:
    """Why a Processing step cannot run as a process; empty: it can."""
    specification = step.get("Arguments", {}).get("AppSpecification", {})
    if not specification.get("ContainerEntrypoint"):
        return "its image's own program would run, and no image is run here."
    return ""


def command(arguments: dict[str, Any]) -> list[str]:
    """The job's entry point and its arguments."""
    specification = arguments["AppSpecification"]
    words = [*specification["ContainerEntrypoint"], *specification.get("ContainerArguments", [])]
    return [str(word) for word in words]


def prepare(s3: Any, arguments: dict[str, Any], ml: Path) -> None:
    """Write the job's inputs and configuration below ``ml``, which is its ``/opt/ml``."""
    for given in arguments.get("ProcessingInputs", []):
        _prepare_input(s3, given, ml)
    for output in _outputs(arguments):
        if "S3Output" in output:
            below(ml, output["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
    config = ml / "config"
    config.mkdir(parents=True)
    (config / "processingjobconfig.json").write_text(json.dumps(arguments))
    cluster = arguments.get("ProcessingResources", {}).get("ClusterConfig", {})
    found = resources(cluster.get("InstanceType", "local"))
    (config / "resourceconfig.json").write_text(json.dumps(found))


def _prepare_input(s3: Any, given: dict[str, Any], ml: Path) -> None:
    name = given.get("InputName", "")
    source = given.get("S3Input")
    if source is None:
        raise StepFailed(
            f"The input {name} is no S3Input, which is all that the local cloud reads."
        )
    if source.get("S3CompressionType", "None") != "None":
        raise StepFailed(f"The input {name} is compressed: the local cloud does not unpack inputs.")
    folder = below(ml, source["LocalPath"])
    if source.get("S3DataType") == "ManifestFile":
        data.download_manifest(s3, source["S3Uri"], folder, MANIFEST_LIMIT)
    else:
        data.download(s3, source["S3Uri"], folder)


def collect(s3: Any, arguments: dict[str, Any], ml: Path) -> dict[str, Any]:
    """Upload the outputs; returns what DescribeProcessingJob has beside the arguments."""
    for output in _outputs(arguments):
        if "S3Output" in output:
            target = output["S3Output"]
            data.upload(s3, below(ml, target["LocalPath"]), target["S3Uri"])
    message = ml / "output" / "message"
    found = {"ExitMessage": message.read_text(errors="replace")[:1024]} if message.is_file() else {}
    return {"ProcessingJobStatus": "Completed", **found}


def _outputs(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = arguments.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return found


def below(ml: Path, path: str) -> Path:
    """A path of the job as a path of this machine.

    Raises:
        StepFailed: It does not lie below ``/opt/ml``.

    """
    found = (ml / Path(path).relative_to(ML)) if Path(path).is_relative_to(ML) else None
    if found is None or ".." in found.parts:
        raise StepFailed(f"The path {path!r} does not lie below {ML}, where a job's folders are.")
    return found
