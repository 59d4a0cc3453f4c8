"""Small tools for replacing actions of moto's SageMaker, whose classes are extended in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Action = Callable[[Any], Any]
"""A moto action: takes moto's response object (``params``, ``sagemaker_backend``), returns the
API's answer.
"""


def answered_by(function: Callable[[Any], dict[str, Any]]) -> Action:
    """A moto action whose answer is the dictionary that a function of ours returns."""
    from moto.core.responses import ActionResult

    return lambda response: ActionResult(function(response))


def invalid(message: str) -> Exception:
    """SageMaker's ValidationException, to be raised."""
    from moto.sagemaker.exceptions import AWSValidationException

    error: Exception = AWSValidationException(message)
    return error


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Answer a full or failing disk in one sentence: moto would answer a page of HTML."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise invalid(f"The local SageMaker cannot write to its home folder: {reason}.") from error


def not_supported(action: str) -> Action:
    """An action that refuses: moto does not have it."""

    def refuse(_response: Any) -> Any:
        raise invalid(f"The local SageMaker does not know {action}.")

    return refuse
