"""What the option table says of one run option, and what is derived from that.

``option(...)`` is an entry of the table: it gives a field of
:class:`~pipelines.run.option_table.RunOptions` its default, bounds, pipeline parameter and flag.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipelines.errors import UsageError

NOT_GIVEN = "-"
"""Stands for "not given" in a pipeline's string parameter or callback output, which SageMaker does
not allow to be empty.
"""
PARAMETER_LIMIT = 1024
"""Characters of one pipeline parameter:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Parameter.html
"""

ParameterValue = str | int | float
_ENTRY = "option"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the SageMaker pipeline."""

    name: str
    argument: str
    """The callback argument, and the field of :class:`~fl_runtime.run.spec.RunSpec`. Empty: the
    pipeline itself uses the parameter.
    """
    default: ParameterValue
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Option:
    """One run option: an entry of the table."""

    name: str
    """In Python: a field of RunOptions."""
    kind: type
    """``int``, ``float``, ``str`` or ``dict``."""
    default: Any
    default_on_aws: Any = None
    """The default on AWS and in schedules, where it differs."""
    parameters: tuple[Parameter, ...]
    unit: str = ""
    least: float | None = None
    above: float | None = None
    """The same as ``least``, itself excluded."""
    most: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    allowed: str = ""
    """What the pattern allows, in words."""
    flag: str = ""
    """On the command line. Empty: it has none."""
    help: str = ""
    """The flag's help. ``{default}`` and ``{on_aws}`` stand for the defaults."""
    metavar: str | None = None

    def check(self, value: Any, called: str = "") -> None:
        """Raise UsageError for a value out of bounds. An empty text means "not given".

        ``called``: the option's name where it is no flag.
        """
        wrong = (
            self._is_out_of_bounds(value)
            if self.kind in (int, float)
            else self.kind is str and value != "" and not self._is_allowed(value)
        )
        if wrong:
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            name = called or self.flag or self.name
            raise UsageError(f"{name} is {shown}; it must be {self.bounds()}.")

    def usage(self) -> str:
        """The flag's help, with the defaults."""
        return self.help.format(default=self.default, on_aws=self.default_on_aws)

    def bounds(self) -> str:
        """What values are allowed, in words."""
        if self.kind is str:
            return " or ".join(self.choices) or self.allowed
        least, most = self.least, "" if self.most is None else _number(self.most)
        if self.above is not None:
            return f"a number above {_number(self.above)}" + (
                f" and at most {most}" if most else ""
            )
        noun = "a whole number" if self.kind is int else "a number"
        if least is None:
            return noun
        return (
            f"{noun} from {_number(least)} to {most}"
            if most
            else f"{noun} of at least {_number(least)}"
        )

    def _is_out_of_bounds(self, value: float | None) -> bool:
        if value is None:
            return False
        return (
            not math.isfinite(value)
            or (self.least is not None and value < self.least)
            or (self.above is not None and value <= self.above)
            or (self.most is not None and value > self.most)
        )

    def _is_allowed(self, value: str) -> bool:
        if self.choices:
            return value in self.choices
        return not self.pattern or re.fullmatch(self.pattern, value) is not None


def option(
    *,
    parameter: str,
    meaning: str,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    argument: str | None = None,
    parameter_default: ParameterValue | None = None,
    also: tuple[Parameter, ...] = (),
    **facts: Any,
) -> Any:
    """A dataclass field that carries its entry of the table.

    ``parameter``, ``meaning``: the pipeline parameter. ``argument``: its callback argument, the
    field's name unless given. ``parameter_default``: its default, where that does not follow from
    the option's. ``also``: further parameters that the option sets. ``facts``: what else
    :class:`Option` takes.
    """
    value = default_factory() if default is dataclasses.MISSING else default
    own_default = encode(facts.get("default_on_aws", value))

    def named(name: str) -> Option:
        own = Parameter(
            name=parameter,
            argument=name if argument is None else argument,
            default=own_default if parameter_default is None else parameter_default,
            meaning=meaning,
        )
        kind = float if value is None else type(value)
        return Option(name=name, kind=kind, default=value, parameters=(own, *also), **facts)

    return dataclasses.field(
        default=default, default_factory=default_factory, metadata={_ENTRY: named}
    )


def entries(table: type) -> tuple[Option, ...]:
    """The entries of a dataclass whose fields are made by :func:`option`, in its order."""
    return tuple(field.metadata[_ENTRY](field.name) for field in dataclasses.fields(table))


def unknown_option(name: str, known: Sequence[str]) -> str:
    """The sentence about an option that there is not, with the nearest one.

    Examples:
        >>> unknown_option("round", ["rounds", "devices"])
        "There is no option 'round': did you mean 'rounds'?"

    """
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
    return f"There is no option {name!r}: {hint}"


def _number(value: float) -> str:
    return f"{value:,.12g}"


def encode(value: Any) -> ParameterValue:
    """A value as a pipeline parameter: a text that is not empty, a number, or JSON."""
    if value is None or value == "":
        return NOT_GIVEN
    if isinstance(value, Mapping):
        return msgspec.json.encode(value).decode()
    return value  # type: ignore[no-any-return]  # a text or a number
