"""What moto's CreatePipeline and UpdatePipeline lack: a definition is checked before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.local.sagemaker.definitions.checks import parsed
from pipelines.local.sagemaker.moto_actions import Action, invalid

DEFINITION_LIMIT = 1_048_576
"""Characters of a definition:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreatePipeline.html
"""
CHECKED = ("create_pipeline", "update_pipeline")


def checked(
    original: Action, read: Callable[[str, str], bytes], repeated: Callable[[], bool]
) -> Action:
    """The action, refusing a definition that SageMaker or this cloud could not run.

    Args:
        original: moto's action.
        read: Reads an object of S3, where the SDK puts large definitions.
        repeated: Whether calls of an earlier cloud are repeated: what was kept then is kept.

    """

    def act(response: Any) -> Any:
        given = response.params
        # moto would look for the object in an S3 of its own.
        location = given.pop("PipelineDefinitionS3Location", None)
        if location is not None:
            try:
                content = read(location["Bucket"], location["ObjectKey"])
            except (ClientError, BotoCoreError) as error:
                raise invalid(f"The pipeline definition cannot be read: {error}") from error
            given["PipelineDefinition"] = content.decode(errors="replace")
        definition = given.get("PipelineDefinition")
        if definition is not None and not repeated():
            if len(definition) > DEFINITION_LIMIT:
                raise invalid(f"The pipeline definition has over {DEFINITION_LIMIT} characters.")
            try:
                parsed(definition)
            except ValueError as error:
                raise invalid(str(error)) from error
        return original(response)

    return act
