"""Writes all that a deployment needs to a folder: for review, other tools and image builds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pipelines
from pipelines.aws.hashes import constraints, hashed
from pipelines.aws.lambda_bundle import bundle, code_key
from pipelines.aws.pins import PARTS, pins
from pipelines.aws.stack_specs import TEMPLATES, specs
from pipelines.aws.wheels import wheel
from pipelines.deployment import Deployment
from pipelines.run.account import DEFAULT_PREFIX, PREFIX_VARIABLE

ASSETS = Path(pipelines.__file__).parent / "aws"


def synthesize(out: Path, parameters: dict[str, str]) -> dict[str, Any]:
    """Write templates, parameters, the functions' code and the contexts of the images.

    Returns:
        The paths of what was written, as ``--json`` shows them.

    Raises:
        DeployError: A parameter is not one of the stacks'.

    """
    prefix = os.environ.get(PREFIX_VARIABLE, DEFAULT_PREFIX)
    # Checks the parameters; account and region are not in the templates.
    specs(Deployment(account="000000000000", region="us-east-1", prefix=prefix), parameters)
    templates = _copy(ASSETS / "templates", out / "templates", [f"{t}.json" for t in TEMPLATES])
    code = bundle()
    values = {"Prefix": prefix, "CodeKey": code_key(code), **parameters}
    (out / "parameters.json").write_text(json.dumps(values, indent=1) + "\n")
    functions = out / "functions.zip"
    functions.write_bytes(code)
    images = out / "images"
    _copy(ASSETS / "images", images, [f.name for f in (ASSETS / "images").glob("*.Dockerfile")])
    for part in PARTS:
        (images / f"{part}.txt").write_text("\n".join(hashed(pins(part))) + "\n")
    (images / "constraints.txt").write_text("\n".join(constraints()) + "\n")
    return {
        "templates": [str(file) for file in templates],
        "functions": str(functions),
        "wheel": str(wheel(images)),
    }


def synthesized_text(out: Path) -> str:
    """What was written, and what to do with it."""
    images = out / "images"
    build = "docker buildx build --platform linux/arm64"
    return (
        f"{out}: templates, functions.zip (without dependencies, which --apply adds), and in "
        f"images/ the contexts of the containers\n"
        f"build one with: {build} -f {images}/proxy.Dockerfile {images}"
    )


def _copy(source: Path, target: Path, names: list[str]) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
    return [target / name for name in names]
