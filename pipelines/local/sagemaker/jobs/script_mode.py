"""Script mode: how SageMaker's framework images run a user's training script.

Command line, folders and ``SM_`` variables are those of the SageMaker training toolkit:
https://github.com/aws/sagemaker-training-toolkit/blob/master/ENVIRONMENT_VARIABLES.md
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipelines.local.sagemaker.jobs.container import ML
from pipelines.local.sagemaker.outcomes import StepFailed

PROGRAM = "sagemaker_program"
SUBMIT = "sagemaker_submit_directory"
CODE = f"{ML}/code"
HOST = "algo-1"


def parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as a script gets them: each is text that may be JSON."""
    return {name: _decoded(value) for name, value in given.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def script_arguments(decoded: dict[str, Any]) -> list[str]:
    """The script's command line: ``--name value`` for each parameter that is the user's own."""
    found: list[str] = []
    for name, value in sorted(decoded.items()):
        if not name.startswith("sagemaker_"):
            dashes = "-" if len(name) == 1 else "--"
            found += [f"{dashes}{name}", _written(value)]
    return found


def _written(value: Any) -> str:
    return (
        value if isinstance(value, str) else str(value) if _is_plain(value) else json.dumps(value)
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def command(program: str, code: Path, arguments: list[str]) -> list[str]:
    """The command that runs the program, as the toolkit would.

    Raises:
        StepFailed: The source directory has no such file.

    """
    if not (code / program).is_file():
        there = ", ".join(sorted(file.name for file in code.iterdir())[:10]) or "nothing"
        raise StepFailed(f"The source directory has no {program}; it has {there}.")
    if program.endswith(".py"):
        return ["python", program, *arguments]
    return ["/bin/sh", program, *arguments]


def variables(
    decoded: dict[str, Any], channels: list[dict[str, Any]], job: str, instance_type: str
) -> dict[str, str]:
    """The ``SM_`` variables of a training script. ``channels``: of the job's InputDataConfig."""
    program = str(decoded[PROGRAM])
    data = data_config(channels)
    folders = {name: f"{ML}/input/data/{name}" for name in data}
    own = {name: v for name, v in decoded.items() if not name.startswith("sagemaker_")}
    framework = {name: v for name, v in decoded.items() if name.startswith("sagemaker_")}
    given = {
        "SM_CHANNELS": json.dumps(sorted(data)),
        "SM_CURRENT_HOST": HOST,
        "SM_FRAMEWORK_PARAMS": json.dumps(framework),
        "SM_HOSTS": json.dumps([HOST]),
        "SM_HPS": json.dumps(own),
        "SM_INPUT_CONFIG_DIR": f"{ML}/input/config",
        "SM_INPUT_DATA_CONFIG": json.dumps(data),
        "SM_INPUT_DIR": f"{ML}/input",
        "SM_LOG_LEVEL": str(decoded.get("sagemaker_container_log_level", 20)),
        "SM_MODEL_DIR": f"{ML}/model",
        "SM_MODULE_DIR": str(decoded.get(SUBMIT, CODE)),
        "SM_MODULE_NAME": program.removesuffix(".py"),
        "SM_NETWORK_INTERFACE_NAME": "lo",
        "SM_NUM_CPUS": str(os.cpu_count() or 1),
        "SM_NUM_GPUS": "0",
        "SM_OUTPUT_DATA_DIR": f"{ML}/output/data",
        "SM_OUTPUT_DIR": f"{ML}/output",
        "SM_OUTPUT_INTERMEDIATE_DIR": f"{ML}/output/intermediate",
        "SM_RESOURCE_CONFIG": json.dumps(resources(instance_type)),
        "SM_TRAINING_ENV": json.dumps(
            {
                "channel_input_dirs": folders,
                "current_host": HOST,
                "hosts": [HOST],
                "hyperparameters": own,
                "input_data_config": data,
                "job_name": job,
                "model_dir": f"{ML}/model",
                "output_data_dir": f"{ML}/output/data",
                "user_entry_point": program,
            }
        ),
        "SM_USER_ARGS": json.dumps(script_arguments(decoded)),
        "SM_USER_ENTRY_POINT": program,
    }
    given |= {f"SM_CHANNEL_{name.upper()}": folder for name, folder in folders.items()}
    given |= {f"SM_HP_{name.upper()}": _written(value) for name, value in own.items()}
    return given


def data_config(channels: list[dict[str, Any]]) -> dict[str, Any]:
    """``inputdataconfig.json``: the job's channels."""
    return {
        channel["ChannelName"]: {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
            **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
        }
        for channel in channels
    }


def resources(instance_type: str = "local") -> dict[str, Any]:
    """``resourceconfig.json``: one host, which is this machine, of the type that was asked for.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
    """
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": instance_type,
        "hosts": [HOST],
    }
    return {
        "current_host": HOST,
        "current_instance_type": instance_type,
        "current_group_name": group["instance_group_name"],
        "hosts": [HOST],
        "instance_groups": [group],
        "network_interface_name": "lo",
    }
