"""Links a registered package: it gets its MLflow version, its evidence and its signed record.

The Link step of our own pipelines calls it, and ``promote`` for packages of other pipelines.
``conclude`` has it sign what a run has ended with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.handlers.aws_clients import registry
from registry.model_version import PENDING, Package
from registry.provenance import ProvenanceMismatch, ProvenanceMissing

if TYPE_CHECKING:
    from registry.wiring import Registry

AGAIN = "Approve it again: nobody could see its evidence before it was linked."
"""Description of a package that was approved before it was linked."""


def handler(request: Mapping[str, Any], context: object) -> dict[str, str]:
    """Lambda entry point. ``request``: one of

    - ``{"model_package_arn"}``, from the Link step;
    - the same with ``by_event``: the package must be what its run's signed record names;
    - the same with ``sign_only``: the package is linked;
    - ``{"run"}``: the run has ended, sign its record.
    """
    both = registry()
    if "run" in request:
        return {"model": both.record_signer().give_run_record(request["run"]).model}
    package = both.sagemaker.get(request["model_package_arn"])
    if request.get("by_event"):
        try:
            if not _admitted(package, both):
                return {"model_version": ""}
        except (ProvenanceMissing, ProvenanceMismatch) as error:
            # As an answer: its caller tells it from a failure that may pass.
            return {"refused": error.code, "reason": str(error)}
    linking = both.linking()
    number = linking.link(package)
    if not request.get("sign_only"):
        linking.give_evidence(package, number)
    both.record_signer().give_record(package, number)
    return {"model_version": number}


def _admitted(package: Package, both: Registry) -> bool:
    """Whether a package, which is what its run's record names, may be linked now.

    An approval that came before the evidence does not count: a pipeline may register its package as
    approved, and a person decides here. Taking the approval back emits the package's next event,
    which links it. A rejected package is left alone.
    """
    both.run_records.check(package)
    if package.approval == "Approved":
        both.sagemaker.set_approval(package.arn, PENDING, AGAIN)
    return package.approval == PENDING
