"""The registration of a federated run's model, as a step object of SageMaker's Python SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.step import sdk
from pipelines.step.plain import check_name, registration

_steps = sdk.module("steps")
_Step: Any = _steps.Step


class RegisterStep(_Step):
    """Registers a model package, pending a person's approval.

    The SDK's own ``ModelStep`` works as well, with ``FederatedStep.metadata`` as its
    ``customer_metadata_properties``. This one is the same in versions 2 and 3, and needs no role.
    """

    def __init__(
        self,
        name: str,
        *,
        outputs: Mapping[str, Any],
        group: str,
        image: str,
        depends_on: Sequence[Any] | None = None,
    ) -> None:
        """``outputs``: the federated step's, by name. ``group``: the model package group.
        ``image``: the container that would serve the model.
        """
        kind = _steps.StepTypeEnum.REGISTER_MODEL
        super().__init__(check_name(name), step_type=kind, depends_on=depends_on)
        self._arguments = registration(outputs, group, image)
        self._properties = sdk.module("properties").Properties(
            step_name=name, step=self, shape_name="DescribeModelPackageOutput"
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The request to CreateModelPackage."""
        return self._arguments

    @property
    def properties(self) -> Any:
        """The registered package, such as ``properties.ModelPackageArn``."""
        return self._properties
