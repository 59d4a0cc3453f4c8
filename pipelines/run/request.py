"""What the pipeline's callback step asks for: its message in the queue, read as a run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edge.protocol.messages import ConfigValue
from edge.typed import convert, from_json
from fl_runtime.run.eligibility import check_requirements
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.keys import run_id
from fl_runtime.run.spec import RunSpec
from pipelines.run.option import NOT_GIVEN
from pipelines.run.option_table import PARAMETERS

_JSON_OBJECTS = tuple(p.argument for p in PARAMETERS if p.default == "{}")


class CallbackMessage(msgspec.Struct, rename="camel"):
    """What a SageMaker callback step puts into the queue.

    https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-callback
    """

    token: str
    pipeline_execution_arn: str
    arguments: dict[str, Any]
    status: Literal["Executing", "Stopping"] = "Executing"


def spec_of(message: CallbackMessage, now: float) -> RunSpec:
    """Check a message's arguments; raises RunFailed that names the one at fault."""
    arguments = {key: value for key, value in message.arguments.items() if value != NOT_GIVEN}
    # An experiment for each app, unless one is named.
    arguments.setdefault("experiment", arguments.get("app_name", ""))
    for name in _JSON_OBJECTS:
        arguments[name] = _mapping(name, str(arguments.get(name, "{}")))
    fields = {
        **arguments,
        "run": run_id(message.token),
        "pipeline_execution_arn": message.pipeline_execution_arn,
        "created_at": now,
    }
    try:
        # Callback arguments may arrive as strings: strict=False reads "3" as 3.
        spec = convert(fields, RunSpec, strict=False)
    except msgspec.ValidationError as error:
        raise RunFailed(
            "bad-run", f"The pipeline's parameters do not make a run: {error}."
        ) from error
    check_requirements(spec.require)
    return spec


def _mapping(name: str, text: str) -> dict[str, ConfigValue]:
    try:
        return from_json(text, type=dict[str, ConfigValue])
    except msgspec.DecodeError as error:
        raise RunFailed(
            "bad-run", f"The parameter {name} is not a JSON object of plain values: {error}."
        ) from error
