"""Errors of ``fl_runtime``, all below the root in :mod:`edge.errors`.

::

    MLEdgeOpsError
      x CodedError
        x RunFailed        the run ends without a model
      x ObjectMissing      an S3 object is absent, or larger than announced
      x SettingMissing     the environment lacks a variable
"""

from __future__ import annotations

from edge.errors import CodedError, MLEdgeOpsError

CAUSE_LIMIT = 256
"""Longest ``FailureReason`` of a SageMaker callback step, in characters:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SendPipelineExecutionStepFailure.html
"""


class RunFailed(CodedError):
    """Ends the run. ``code`` says why, and is stable; the message is one sentence, cut to
    :data:`CAUSE_LIMIT` characters.
    """

    exit_code = 1

    def __init__(self, code: str, message: str) -> None:
        fits = len(message) <= CAUSE_LIMIT
        super().__init__(code, message if fits else message[: CAUSE_LIMIT - 3] + "...")


class ObjectMissing(MLEdgeOpsError):
    """An object is absent, or larger than announced."""

    exit_code = 1
    code = "object-missing"


class SettingMissing(MLEdgeOpsError):
    """The environment lacks a variable, which the message names."""

    code = "setting-missing"
