"""Patch of ministack's DynamoDB: a condition is parsed once, not for each row that it judges.

A cohort's poll reads the replies of 100 devices, and the condition is the same text for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ministack.services import dynamodb

EXPRESSIONS = 512
"""Texts whose parts are kept. Those of the product are a few dozen."""


def parse_once() -> None:
    """Keep what two functions of the emulator make of a text alone."""
    dynamodb._tokenize = _copied(lru_cache(EXPRESSIONS)(dynamodb._tokenize))
    dynamodb._condition_syntax_error = lru_cache(EXPRESSIONS)(dynamodb._condition_syntax_error)


def _copied(original: Callable[[str], list[Any]]) -> Callable[[str], list[Any]]:
    """The evaluator may change the list that it is given."""
    return lambda expression: list(original(expression))
