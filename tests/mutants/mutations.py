"""The changes that a mutant is made by: one small change to one module's text.

Comparisons, ``and`` and ``or``, conditions, arithmetic, numbers, truth values, what is returned,
and statements that are left out. Not changed are texts (a message in other words is no other
decision), annotations, decorators, imports, what is logged, ``__repr__``, and arguments that decide
nothing: ``strict`` of ``zip``, ``copy`` of NumPy.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

SWAPPED: dict[type, str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.And: "or",
    ast.Or: "and",
}
TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
"""Functions that are taken for each other."""
LOGGING = ("event", "log")
DECIDE_NOTHING = ("strict", "copy")
"""Arguments that check what is so already, or say where memory comes from."""


class Change(NamedTuple):
    """The part of a module's text from one offset to another (in bytes) becomes something else."""

    start: int
    end: int
    text: str
    line: int
    kind: str


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    module: str
    """Its path below the root."""
    change: Change
    at_import: bool
    """Whether the changed text runs when the module is imported, and not in a function."""

    def applied(self, source: bytes) -> bytes:
        """The module's text with the change."""
        return source[: self.change.start] + self.change.text.encode() + source[self.change.end :]

    def described(self, source: bytes) -> str:
        """Where the change is, and what became what."""
        before = " ".join(source[self.change.start : self.change.end].decode().split())
        return (
            f"{self.module}:{self.change.line} {self.change.kind}: {before} -> {self.change.text}"
        )


def mutants(module: str, source: bytes) -> list[Mutant]:
    """Every mutant of a module, in the order of its text."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node: ast.AST) -> tuple[int, int]:
        first = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return first, starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    found = []
    for node, in_function in _visited(ast.parse(source), False):
        for kind, part, text in _changes(node):
            change = Change(*span(part), text, part.lineno, kind)  # type: ignore[attr-defined]
            found.append(Mutant(module, change, not in_function))
    return sorted(set(found), key=lambda mutant: mutant.change)


def _visited(node: ast.AST, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    """The nodes that may change, each with whether it runs only when a function is called."""
    yield node, in_function
    inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "format_spec"):
            continue
        if name == "keywords" and isinstance(node, ast.ClassDef):
            continue
        at_import = name in ("args", "defaults") and not isinstance(node, ast.Lambda | ast.Call)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _left_alone(child):
                yield from _visited(child, in_function if at_import else inside)


def _left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal() | ast.JoinedStr():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.FunctionDef(name="__repr__"):
            return True
        case ast.keyword(arg=name) if name in DECIDE_NOTHING:
            return True
        case ast.Expr(value=ast.Constant()):  # A docstring.
            return True
        case ast.Expr(value=ast.Call(func=called)):
            return _last_name(called) in LOGGING
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in ("__all__", "logger", "_T", "T")
        case _:
            return False


def _last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """What may become of a node: the kind of change, the part that changes, and its new text."""
    return chain.from_iterable(change(node) for change in _KINDS)


def _operator(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            text = f"{ast.unparse(left)} {SWAPPED[type(operator)]} {ast.unparse(right)}"
            yield "comparison", node, f"({text})"
        case ast.Compare(left=left, ops=[*operators], comparators=[*others]):
            for at, swapped in enumerate(operators):
                words = [ast.unparse(left)]
                for number, (operator, other) in enumerate(zip(operators, others, strict=True)):
                    old = ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))
                    words.append(SWAPPED[type(swapped)] if number == at else old[2:-2])
                    words.append(ast.unparse(other))
                yield "comparison", node, f"({' '.join(words)})"
        case ast.BoolOp(op=operator, values=values):
            words = [f"({ast.unparse(value)})" for value in values]
            yield "and/or", node, f"({f' {SWAPPED[type(operator)]} '.join(words)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", node, f"bool({ast.unparse(operand)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in SWAPPED:
            if not _is_text(left) and not _is_text(right):
                text = f"({ast.unparse(left)}) {SWAPPED[type(operator)]} ({ast.unparse(right)})"
                yield "arithmetic", node, f"({text})"
        case ast.AugAssign(target=target, op=operator, value=value) if type(operator) in SWAPPED:
            text = f"{ast.unparse(target)} {SWAPPED[type(operator)]}= {ast.unparse(value)}"
            yield "arithmetic", node, text


def _value(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    match node:
        case ast.Constant(value=bool(value)):
            yield "truth value", node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            # One more is the same number for a large float.
            yield "number", node, repr(value + 1 if value + 1 != value else value * 2)
        case ast.Call(func=ast.Name(id=name) as function) if name in TWINS:
            yield "function", function, TWINS[name]
        case ast.Return(value=ast.AST() as value):
            # A bool's truth value changes anyway, and None in its place is mypy's to notice.
            if not (
                isinstance(value, ast.Constant) and (value.value is None or value.value is False)
            ):
                yield "returned", value, "None"


def _flow(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):
                yield "condition", test, f"(not ({ast.unparse(test)}))"
        case ast.comprehension(ifs=[*tests]):
            for test in tests:
                yield "filter", test, "True"
        case ast.Break():
            yield "statement", node, "continue"
        case ast.Continue():
            yield "statement", node, "break"
        case ast.Raise():
            yield "statement", node, "pass"
        case ast.Expr(value=ast.Call()) | ast.Expr(value=ast.Await()):
            yield "statement", node, "pass"
        case ast.Delete() | ast.AugAssign():
            yield "statement", node, "pass"


_KINDS: tuple[Callable[[ast.AST], Iterator[tuple[str, ast.AST, str]]], ...] = (
    _operator,
    _value,
    _flow,
)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
