"""After RegisterModel: the package's MLflow version and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.handlers.aws_clients import set_up_logs
from registry.rollout.service import Rollouts


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point of the pipeline's Link step."""
    set_up_logs()
    rollouts = Rollouts()
    linking, package = rollouts.linking(), rollouts.sagemaker.get(request["model_package_arn"])
    number = linking.link(package)
    linking.give_evidence(package, number)
    return {"model_version": number}
