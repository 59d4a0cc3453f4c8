"""The pipeline's definition as the package carries it: the JSON that the SageMaker SDK makes.

Importing the SDK takes two to three seconds, which every run would wait for. So the definition is
made once, with marks in place of what differs between deployments and apps
(``python -m pipelines.step``, part of ``make templates``), and filled in here. A test
compares it with what the SDK makes of :mod:`pipelines.step.pipeline`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.deployment import Deployment
from pipelines.errors import DeployError
from pipelines.run.names import package_group

FILE = Path(__file__).with_name("definition.json")
"""``pipeline``: the marked definition; ``images``: the inference container by region;
``experiments``: the regions that have SageMaker Experiments.
"""
MARKED = Deployment(account="ACCOUNT0MARK", region="REGION0MARK", prefix="PREFIX0MARK")
APP_MARK, IMAGE_MARK = "APP0MARK", "IMAGE0MARK"
_EXPERIMENT = "PipelineExperimentConfig"


def definition(deployment: Deployment, app_name: str) -> str:
    """The definition of an app's pipeline, as JSON.

    Raises:
        DeployError: SageMaker has no PyTorch inference container in the deployment's region.

    """
    shipped, region = _shipped(), deployment.region
    image = inference_image(region)
    if region not in shipped["experiments"]:
        shipped["pipeline"][_EXPERIMENT] = None
    text = json.dumps(shipped["pipeline"])
    values = {
        MARKED.account: deployment.account,
        MARKED.region: region,
        MARKED.prefix: deployment.prefix,
        APP_MARK: package_group(app_name),
        IMAGE_MARK: image,
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def inference_image(region: str) -> str:
    """AWS's PyTorch inference container in a region. Raises DeployError where there is none."""
    images: dict[str, str] = _shipped()["images"]
    if region not in images:
        raise DeployError(
            f"SageMaker has no PyTorch inference container in {region}: deploy to another region."
        )
    return images[region]


def _shipped() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found
