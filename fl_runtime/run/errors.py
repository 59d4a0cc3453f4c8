"""Why a run ended without a model.

RunFailed                the run cannot go on: the reason is for a person, the code is counted
"""

from __future__ import annotations

CAUSE_LIMIT = 256
"""Characters of a SageMaker callback step's FailureReason."""


class RunFailed(Exception):
    """Ends the run. ``code`` is stable; the message is one sentence of at most 256 characters."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(
            message if len(message) <= CAUSE_LIMIT else message[: CAUSE_LIMIT - 3] + "..."
        )
        self.code = code
