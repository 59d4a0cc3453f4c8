"""Writes the pipeline's definition into the package: ``python -m pipelines.step``."""

from __future__ import annotations

import json
import warnings
from typing import Any

from pipelines.run.definition import APP_MARK, FILE, IMAGE_MARK, MARKED
from pipelines.step import sdk
from pipelines.step.pipeline import build


def main() -> None:
    """Write the file, from what the SDK makes."""
    FILE.write_text(json.dumps(_shipped(), indent=1, sort_keys=True) + "\n")


def _shipped() -> dict[str, Any]:
    import boto3

    region = "us-east-1"  # one with Experiments
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    session = sdk.session(MARKED, boto3.Session(region_name=region, **keys))
    pipeline = build(MARKED, APP_MARK, session, image=IMAGE_MARK)
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
