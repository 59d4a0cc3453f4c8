"""The pattern language of CloudWatch Logs metric filters, as far as JSON log lines need it.

Comparisons, ``= *``, ``IS TRUE|FALSE|NULL``, ``EXISTS``, ``NOT EXISTS``, ``&&``, ``||`` and
parentheses. Any other pattern is refused, so that it fails at the cloud's start.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax-for-Metric-Filters.html
"""

from __future__ import annotations

import fnmatch
import json
import operator
import re
from collections.abc import Callable
from typing import Any

from pipelines.local.home import LocalCloudError

Line = dict[str, Any]
"""A log line's JSON object."""
Predicate = Callable[[Line], bool]

ABSENT = object()
"""The value of a selector that a line does not have."""
_TOKEN = re.compile(
    r"\s*(?:"
    r"(&&|\|\||[(){}])"
    r"|(\$(?:\.[A-Za-z0-9_\-]+)+)"  # selector
    r"|(!=|<=|>=|=|<|>)"
    r'|("(?:[^"\\]|\\.)*")'
    r"|(NOT EXISTS|EXISTS|IS)"
    r"|([^\s(){}&|]+)"
    r")"
)
_WORDS = {"TRUE": True, "FALSE": False, "NULL": None}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class PatternError(LocalCloudError):
    """A filter pattern that cannot be read."""

    code = "filter-pattern"


def parse(pattern: str) -> Predicate:
    """Turn a filter pattern into a predicate on log lines.

    Raises:
        PatternError: The pattern is not in the language above.

    """
    return _Parser(pattern).parse()


def field(line: Line, selector: str) -> Any:
    """The value at a selector such as ``$.a.b``, or ``ABSENT``."""
    found: Any = line
    for part in selector.split(".")[1:]:
        if not isinstance(found, dict) or part not in found:
            return ABSENT
        found = found[part]
    return found


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (in Python, ``bool`` is an ``int``; in JSON it is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Parser:
    """Recursive descent: pattern = "{" or "}"; or = and ("||" and)*; and = term ("&&" term)*."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tokens = [match.group().strip() for match in _TOKEN.finditer(pattern)]
        self._at = 0
        # finditer skips what no token matches, so compare what was read with what was given.
        if "".join(self._tokens).replace(" ", "") != re.sub(r"\s", "", pattern):
            raise _unreadable(pattern)

    def parse(self) -> Predicate:
        self._expect("{")
        predicate = self._or()
        self._expect("}")
        if self._at != len(self._tokens):
            raise _unreadable(self._pattern)
        return predicate

    def _or(self) -> Predicate:
        terms = [self._and()]
        while self._accept("||"):
            terms.append(self._and())
        return lambda line: any(term(line) for term in terms)

    def _and(self) -> Predicate:
        terms = [self._term()]
        while self._accept("&&"):
            terms.append(self._term())
        return lambda line: all(term(line) for term in terms)

    def _term(self) -> Predicate:
        if self._accept("("):
            inner = self._or()
            self._expect(")")
            return inner
        selector, relation = self._next(), self._next()
        if not selector.startswith("$."):
            raise _unreadable(self._pattern)
        if relation in ("EXISTS", "NOT EXISTS"):
            return lambda line: (field(line, selector) is not ABSENT) == (relation == "EXISTS")
        value = self._next()
        if relation == "IS" and value in _WORDS:
            return lambda line: field(line, selector) is _WORDS[value]
        if relation not in _COMPARISONS:
            raise _unreadable(self._pattern)
        try:
            return _comparison(selector, relation, value)
        except ValueError as error:
            raise _unreadable(self._pattern) from error

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise _unreadable(self._pattern)
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, token: str) -> bool:
        """Consume a token if it is the next."""
        found = self._at < len(self._tokens) and self._tokens[self._at] == token
        self._at += found
        return found

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise _unreadable(self._pattern)


def _comparison(selector: str, relation: str, value: str) -> Predicate:
    """Compare with ``*`` (presence), a quoted text (with wildcards) or a number.

    Raises:
        ValueError: ``value`` is none of these.

    """
    if value == "*":
        return lambda line: (field(line, selector) is not ABSENT) == (relation == "=")
    if value.startswith('"'):
        text = json.loads(value)

        def matches(line: Line) -> bool:
            found = field(line, selector)
            return isinstance(found, str) and fnmatch.fnmatchcase(found, text)

        return lambda line: matches(line) == (relation == "=")
    number, compare = float(value), _COMPARISONS[relation]

    def holds(line: Line) -> bool:
        found = field(line, selector)
        return is_number(found) and compare(float(found), number)

    return holds


def _unreadable(pattern: str) -> PatternError:
    return PatternError(
        f"The filter pattern {pattern!r} is not one that the local cloud can match JSON log "
        "lines with."
    )
