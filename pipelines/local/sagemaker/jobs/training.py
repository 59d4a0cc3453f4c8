"""Training jobs: script mode, and images whose entry point the definition gives.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.local.sagemaker.jobs import data, script_mode
from pipelines.local.sagemaker.jobs.container import ML
from pipelines.local.sagemaker.jobs.processing import MANIFEST_LIMIT, below
from pipelines.local.sagemaker.outcomes import StepFailed

REQUIREMENTS = "requirements.txt"
LINE_LIMIT = 2000
"""Characters of a log line in which metrics are looked for."""


def why_not(step: dict[str, Any]) -> str:
    """Why a Training step cannot run as a process; empty: it can."""
    arguments = step.get("Arguments", {})
    specification = arguments.get("AlgorithmSpecification", {})
    if specification.get("ContainerEntrypoint"):
        return ""
    if script_mode.PROGRAM in arguments.get("HyperParameters", {}):
        return ""
    return (
        "it trains by the code of its image, and no image is run here (script mode and @step are)."
    )


def prepare(s3: Any, arguments: dict[str, Any], ml: Path) -> None:
    """Write the job's channels and configuration below ``ml``, which is its ``/opt/ml``."""
    for folder in ("model", "output/data", "input/config", "checkpoints", "code"):
        (ml / folder).mkdir(parents=True)
    channels = arguments.get("InputDataConfig", [])
    for channel in channels:
        _prepare_channel(s3, channel, ml)
    config, given = ml / "input" / "config", arguments.get("HyperParameters", {})
    (config / "hyperparameters.json").write_text(json.dumps(given))
    (config / "resourceconfig.json").write_text(
        json.dumps(script_mode.resources(_instance_type(arguments)))
    )
    (config / "inputdataconfig.json").write_text(json.dumps(script_mode.data_config(channels)))


def _prepare_channel(s3: Any, channel: dict[str, Any], ml: Path) -> None:
    name = channel["ChannelName"]
    source = channel.get("DataSource", {}).get("S3DataSource")
    if source is None or source.get("S3DataType") == "AugmentedManifestFile":
        raise StepFailed(f"The channel {name} is neither objects nor a manifest in S3.")
    if channel.get("InputMode", "File") == "Pipe":
        raise StepFailed(f"The channel {name} is piped; the local cloud gives files (File).")
    if channel.get("CompressionType", "None") != "None":
        raise StepFailed(f"The channel {name} is compressed: the local cloud does not unpack it.")
    folder = below(ml, f"{ML}/input/data/{name}")
    if source.get("S3DataType") == "ManifestFile":
        data.download_manifest(s3, source["S3Uri"], folder, MANIFEST_LIMIT)
    else:
        data.download(s3, source["S3Uri"], folder)


def prepare_code(s3: Any, arguments: dict[str, Any], ml: Path) -> None:
    """In script mode, unpack the source directory, which lies in S3 or in a channel."""
    if arguments["AlgorithmSpecification"].get("ContainerEntrypoint"):
        return
    source = str(script_mode.parameters(arguments["HyperParameters"]).get(script_mode.SUBMIT, ""))
    if source.startswith("s3://"):
        archive = ml / "code.tar.gz"
        bucket, key = data.bucket_and_key(source)
        s3.download_file(bucket, key, str(archive))
    elif source.startswith(f"{ML}/"):
        archive = below(ml, source)
    else:
        raise StepFailed(f"{script_mode.SUBMIT} {source!r} is neither in S3 nor below {ML}.")
    if archive.is_file():
        data.unpack(archive, ml / "code")


def command(arguments: dict[str, Any], ml: Path) -> tuple[list[str], str]:
    """What the job runs, and in which folder."""
    specification = arguments["AlgorithmSpecification"]
    if entry := specification.get("ContainerEntrypoint"):
        words = [*entry, *specification.get("ContainerArguments", [])]
        return [str(word) for word in words], ML
    decoded = script_mode.parameters(arguments.get("HyperParameters", {}))
    code, given = ml / "code", script_mode.script_arguments(decoded)
    found = script_mode.command(str(decoded[script_mode.PROGRAM]), code, given)
    if (code / REQUIREMENTS).is_file():
        # As in SageMaker's images; it goes into the job's own environment.
        line = 'python -m pip install -q -r "$0" && exec "$@"'
        found = ["/bin/sh", "-c", line, REQUIREMENTS, *found]
    return found, script_mode.CODE


def variables(arguments: dict[str, Any], name: str, arn: str) -> dict[str, str]:
    """The job's environment, the user's own included."""
    found = {"TRAINING_JOB_NAME": name, "TRAINING_JOB_ARN": arn}
    decoded = script_mode.parameters(arguments.get("HyperParameters", {}))
    if script_mode.PROGRAM in decoded:
        channels, kind = arguments.get("InputDataConfig", []), _instance_type(arguments)
        found |= script_mode.variables(decoded, channels, name, kind)
    return found


def _instance_type(arguments: dict[str, Any]) -> str:
    return str(arguments.get("ResourceConfig", {}).get("InstanceType") or "local")


def collect(s3: Any, arguments: dict[str, Any], ml: Path, name: str, log: Path) -> dict[str, Any]:
    """Upload model and output; returns what DescribeTrainingJob has beside the arguments."""
    target = arguments["OutputDataConfig"]
    root = f"{target['S3OutputPath'].rstrip('/')}/{name}/output"
    if target.get("CompressionType") == "NONE":
        model = f"{root}/model/"
        data.upload(s3, ml / "model", model)
    else:
        model = f"{root}/model.tar.gz"
        data.upload_archive(s3, ml / "model", model)
    if any((ml / "output" / "data").iterdir()):
        data.upload_archive(s3, ml / "output" / "data", f"{root}/output.tar.gz")
    checkpoints = arguments.get("CheckpointConfig", {}).get("S3Uri")
    if checkpoints:
        data.upload(s3, ml / "checkpoints", checkpoints)
    definitions = arguments["AlgorithmSpecification"].get("MetricDefinitions", [])
    with log.open(errors="replace") as lines:
        metrics = metrics_of(definitions, lines)
    return {
        "ModelArtifacts": {"S3ModelArtifacts": model},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "FinalMetricDataList": [{"MetricName": n, "Value": v} for n, v in metrics.items()],
    }


def metrics_of(definitions: list[dict[str, str]], lines: Iterable[str]) -> dict[str, float]:
    """The last value of each metric that a log shows, by the definitions' regular expressions."""
    found: dict[str, float] = {}
    patterns = [(item["Name"], re.compile(item["Regex"])) for item in definitions]
    for line in lines if patterns else ():
        for name, pattern in patterns:
            match = pattern.search(line[:LINE_LIMIT])
            if match and match.groups():
                try:
                    found[name] = float(match.group(1))
                except (TypeError, ValueError):
                    sys.stderr.write(f"{name}: {match.group(1)!r} is not a number\n")
    return found


def failure(ml: Path) -> str:
    """What the script wrote to ``/opt/ml/output/failure``; empty: nothing."""
    file = ml / "output" / "failure"
    return file.read_text(errors="replace")[:1024].strip() if file.is_file() else ""
