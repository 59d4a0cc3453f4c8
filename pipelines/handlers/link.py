"""The pipeline's Link step: the registered package gets its MLflow version, its evidence and its
signed record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.handlers.aws_clients import registry


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Link step. ``sign_only``: the package is linked."""
    both = registry()
    linking, package = both.linking(), both.sagemaker.get(request["model_package_arn"])
    number = linking.link(package)
    if not request.get("sign_only"):
        linking.give_evidence(package, number)
    both.record_signer().give_record(package, number)
    return {"model_version": number}
