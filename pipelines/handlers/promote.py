"""Links packages that other pipelines than ours registered, and promotes a model whose package was
approved: MLflow mirrors it, and its rollout begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from edge.logs import event
from edge.typed import convert
from fl_runtime.run.errors import ObjectMissing, RunFailed
from fl_runtime.run.keys import spec_key
from fl_runtime.run.spec import decode_spec
from pipelines.handlers.aws_clients import registry
from pipelines.run.names import links_itself
from registry.model_version import RUN_TAG, Version
from registry.promotion import StateChange, promote, record_approval
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.wiring import Registry

logger = logging.getLogger(__name__)


def link(arn: str, both: Registry) -> bool:
    """Link a package that carries a run's tag, unless the run's own pipeline does. False: the
    package has nothing to do with a run, or was refused; the log says why.
    """
    run = both.sagemaker.get(arn).metadata.get(RUN_TAG, "")
    try:
        if not run:
            return False
        spec = decode_spec(both.objects.get(spec_key(run)))
        if links_itself(spec.pipeline_execution_arn, both.prefix, spec.app_name):
            return False
        both.link_function.link(arn)
    except (ObjectMissing, RunFailed, ProvenanceMissing, ProvenanceMismatch) as error:
        event(logger, "link-refused", logging.ERROR, model_package_arn=arn, reason=str(error))
        return False
    return True


def handler(package_event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the rule on "SageMaker Model Package State Change"."""
    both = registry()

    def approver(arn: str) -> str:
        return both.sagemaker.get(arn).modified_by

    def begin(version: Version, who: str, why: str) -> None:
        record_approval(both.audit, version, who=who, why=why, at=time.time())
        both.rollouts.begin(version, by=who, reason=why)

    change = convert(package_event["detail"], StateChange)
    return promote(change, both.mlflow, approver, begin, lambda arn: link(arn, both))
