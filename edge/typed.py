"""Parsing into types: JSON, MessagePack and plain objects, from any thread.

msgspec describes a type when it is first parsed into, and other threads may use the description
while it is still being made: with 0.22 that ends the interpreter by SIGSEGV
(docs/decisions/0042-types-are-described-by-one-thread.md). Here one thread makes it and the others
wait. A test allows no other way to parse into a type.
"""

from __future__ import annotations

import builtins
import threading
from typing import Any, TypeVar, overload

import msgspec

_T = TypeVar("_T")

_described: set[Any] = set()
_describing = threading.Lock()


@overload
def from_json(data: bytes | str | memoryview, *, type: type[_T]) -> _T: ...


@overload
def from_json(data: bytes | str | memoryview, *, type: Any) -> Any: ...


def from_json(data: bytes | str | memoryview, *, type: Any) -> Any:
    """Parse JSON. Raises msgspec.MsgspecError, and ValueError for text that is no text."""
    _describe(type)
    return msgspec.json.decode(data, type=type)


@overload
def from_msgpack(data: bytes | memoryview, *, type: type[_T]) -> _T: ...


@overload
def from_msgpack(data: bytes | memoryview, *, type: Any) -> Any: ...


def from_msgpack(data: bytes | memoryview, *, type: Any) -> Any:
    """Parse MessagePack. Raises msgspec.MsgspecError, and ValueError for text that is no text."""
    _describe(type)
    return msgspec.msgpack.decode(data, type=type)


@overload
def convert(value: Any, type: builtins.type[_T], *, strict: bool = True) -> _T: ...


@overload
def convert(value: Any, type: Any, *, strict: bool = True) -> Any: ...


def convert(value: Any, type: Any, *, strict: bool = True) -> Any:
    """Check a plain object against a type; see msgspec.convert. Raises msgspec.MsgspecError."""
    _describe(type)
    return msgspec.convert(value, type, strict=strict)


def _describe(kind: Any) -> None:
    """Have msgspec describe a type and all types that it names, once."""
    if kind in _described:
        return
    with _describing:
        msgspec.json.Decoder(kind)
        _described.add(kind)
