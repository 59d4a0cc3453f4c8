"""Paths into JSON values, as references and ``Std:JsonGet`` write them: ``A.b['c'][0]``."""

from __future__ import annotations

import re
from typing import Any

_PART = re.compile(r"\.?([A-Za-z0-9_\-]+)|\['([^']*)'\]|\[\"([^\"]*)\"\]|\[(\d{1,6})\]")

_NAMED_BY = ("OutputName", "InputName", "ChannelName", "MetricName", "Name")
"""Fields that name the items of a list. A Describe call answers with lists, and references choose
their items by name: ``Outputs['train']``.
"""


def parts_of(path: str) -> list[str | int]:
    """The keys and indices of a path; a leading ``$`` is the value itself.

    Raises:
        ValueError: It is no path.

    """
    rest, found = path.removeprefix("$"), list[str | int]()
    while rest:
        part = _PART.match(rest)
        if part is None:
            raise ValueError(f"{path!r} is not a path like A.b['c'][0].")
        name, quoted, double, index = part.groups()
        found.append(int(index) if index is not None else name or quoted or double or "")
        rest = rest[part.end() :]
    return found


def value_at(value: Any, path: str) -> Any:
    """What lies at a path in a JSON value.

    Raises:
        LookupError: Nothing lies there.
        ValueError: It is no path.

    """
    for part in parts_of(path):
        value = _item(value, part)
    return value


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value[str(part)]
    if isinstance(value, list):
        if isinstance(part, int) or part.isdigit():
            return value[int(part)]
        for item in value:
            if isinstance(item, dict) and part in (item.get(name) for name in _NAMED_BY):
                return item
    raise LookupError(part)
