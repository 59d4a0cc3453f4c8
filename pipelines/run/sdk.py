"""The SageMaker Python SDK as we use it: quiet, without telemetry, imported at the first call.

Importing it takes seconds, so nothing here does so at import.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from pipelines.deployment import Deployment

if TYPE_CHECKING:
    import boto3
    from sagemaker.workflow.pipeline_context import PipelineSession

_NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
"""Otherwise Pipeline.create and start send the account id and exception texts to a host of the
SDK's (``sagemaker.telemetry``).
"""


def session(deployment: Deployment, boto_session: boto3.Session) -> PipelineSession:
    """A SageMaker session that only records steps, with telemetry switched off."""
    os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")  # read when the SDK is imported
    logging.getLogger("sagemaker").setLevel(logging.ERROR)
    # The SDK's configuration logger has a handler on stdout, which is the commands' JSON.
    logging.getLogger("sagemaker.config").disabled = True
    from sagemaker.workflow.pipeline_context import PipelineSession

    return PipelineSession(
        boto_session=boto_session, default_bucket=deployment.bucket, sagemaker_config=_NO_TELEMETRY
    )


def inference_image(region: str) -> str:
    """AWS's PyTorch inference container for a region."""
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
