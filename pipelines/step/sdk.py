"""SageMaker's Python SDK, version 2 or 3, whichever is installed; imported at the first call.

Importing it takes seconds, so nothing here does so at import. Version 2 ends on 2027-07-05; version
3 has the same steps in other modules.
"""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType
from typing import TYPE_CHECKING

from botocore.exceptions import NoRegionError

from pipelines.deployment import Deployment
from pipelines.errors import UsageError

if TYPE_CHECKING:
    import boto3
    from sagemaker.workflow.pipeline_context import PipelineSession

_HOMES = ("sagemaker.mlops.workflow", "sagemaker.core.workflow", "sagemaker.workflow")
"""Where the SDK keeps its pipelines' modules: version 3, version 3's base, version 2."""
_NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""Otherwise Pipeline.create and start send the account id and exception texts to a host of the
SDK's (``sagemaker.telemetry``).
"""


def module(name: str) -> ModuleType:
    """One of the SDK's modules for pipelines, such as ``callback_step``.

    Raises:
        UsageError: Neither version is installed, or no region is set, which version 3 wants when
            it is imported.

    """
    for home in _HOMES:
        try:
            return importlib.import_module(f"{home}.{name}")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("sagemaker"):
                raise
        except NoRegionError as error:
            raise UsageError(
                "SageMaker's Python SDK wants an AWS region when it is imported: set "
                "AWS_DEFAULT_REGION, or a region in your AWS profile."
            ) from error
    raise UsageError(
        "FederatedStep needs SageMaker's Python SDK: install sagemaker, version 2.257 or 3. "
        "federated_step_json gives the same step without it."
    )


def session(deployment: Deployment, boto_session: boto3.Session) -> PipelineSession:
    """A session of version 2 that only records steps, with telemetry switched off."""
    os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")  # read when the SDK is imported
    logging.getLogger("sagemaker").setLevel(logging.ERROR)
    # The SDK's configuration logger has a handler on stdout, which is the commands' JSON.
    logging.getLogger("sagemaker.config").disabled = True
    from sagemaker.workflow.pipeline_context import PipelineSession

    return PipelineSession(
        boto_session=boto_session, default_bucket=deployment.bucket, sagemaker_config=_NO_TELEMETRY
    )


def inference_image(region: str) -> str:
    """AWS's PyTorch inference container for a region, as version 2 names it."""
    from sagemaker import image_uris

    uri: str = image_uris.retrieve(
        "pytorch",
        region,
        version="2.6.0",
        py_version="py312",
        image_scope="inference",
        instance_type="ml.m5.large",
    )
    return uri


def inference_images() -> dict[str, str]:
    """AWS's PyTorch inference container in each region that has it."""
    from sagemaker import image_uris

    table = image_uris.config_for_framework("pytorch")["inference"]["versions"]["2.6.0"]
    return {region: inference_image(region) for region in sorted(table["registries"])}


def experiment_regions() -> list[str]:
    """The regions in which the SDK adds an experiment to a pipeline."""
    from sagemaker.workflow import pipeline

    return sorted(pipeline.EXPERIMENTS_REGIONS)
