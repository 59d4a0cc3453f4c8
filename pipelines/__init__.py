"""The SageMaker pipeline, the state machine, the Lambda handlers, the CLI, and the two clouds they
run on.

What a notebook or a pipeline's author needs is imported from here, and loaded when it is first
used: the SageMaker SDK and MLflow take seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.desk.notebook.connect import connect as connect
    from pipelines.step.arguments import PublishedApp as PublishedApp
    from pipelines.step.federated_step import FederatedStep as FederatedStep
    from pipelines.step.plain import federated_step_json as federated_step_json
    from pipelines.step.plain import register_step_json as register_step_json

_HOMES = {
    "FederatedStep": "pipelines.step.federated_step",
    "PublishedApp": "pipelines.step.arguments",
    "connect": "pipelines.desk.notebook.connect",
    "federated_step_json": "pipelines.step.plain",
    "register_step_json": "pipelines.step.plain",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Import a name's module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What completes."""
    return sorted({*globals(), *_HOMES})
