"""The pipeline's definition as the package carries it: the JSON that the SageMaker SDK makes.

Importing the SDK takes two to three seconds, which every run would wait for. So the definition is
made once, with marks in place of what differs between deployments and apps
(``python -m pipelines.run.definition``, part of ``make templates``), and filled in here. A test
compares it with what the SDK makes of :mod:`pipelines.run.pipeline`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from pipelines.deployment import Deployment
from pipelines.errors import DeployError
from pipelines.run.names import package_group

FILE = Path(__file__).with_name("definition.json")
"""``pipeline``: the marked definition; ``images``: the inference container by region;
``experiments``: the regions that have SageMaker Experiments.
"""
_MARKED = Deployment(account="ACCOUNT0MARK", region="REGION0MARK", prefix="PREFIX0MARK")
_APP, _IMAGE = "APP0MARK", "IMAGE0MARK"
_EXPERIMENT = "PipelineExperimentConfig"


def definition(deployment: Deployment, app_name: str) -> str:
    """The definition of an app's pipeline, as JSON.

    Raises:
        DeployError: SageMaker has no PyTorch inference container in the deployment's region.

    """
    shipped = json.loads(FILE.read_text())
    region = deployment.region
    if region not in shipped["images"]:
        raise DeployError(
            f"SageMaker has no PyTorch inference container in {region}: deploy to another region."
        )
    if region not in shipped["experiments"]:
        shipped["pipeline"][_EXPERIMENT] = None
    text = json.dumps(shipped["pipeline"])
    values = {
        _MARKED.account: deployment.account,
        _MARKED.region: region,
        _MARKED.prefix: deployment.prefix,
        _APP: package_group(app_name),
        _IMAGE: shipped["images"][region],
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def main() -> None:
    """Write the file, from what the SDK makes."""
    FILE.write_text(json.dumps(_shipped(), indent=1, sort_keys=True) + "\n")


def _shipped() -> dict[str, Any]:
    import boto3

    from pipelines.run import sdk
    from pipelines.run.pipeline import build

    region = "us-east-1"  # one with Experiments
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    session = sdk.session(_MARKED, boto3.Session(region_name=region, **keys))
    pipeline = build(_MARKED, _APP, session, image=_IMAGE)
    with warnings.catch_warnings():
        # The SDK warns that it does not update our Lambda functions: the stacks own them.
        warnings.simplefilter("ignore")
        made = json.loads(pipeline.definition())
    return {
        "pipeline": made,
        "images": sdk.inference_images(),
        "experiments": sdk.experiment_regions(),
    }


if __name__ == "__main__":
    main()
