"""Mutation in pure Python: for machines without atheris, and the same everywhere for a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

TOKENS = (
    b"NaN",
    b"-Infinity",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'""',
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u202e",
    "\u202e".encode(),
    b"\x00",
    b"\n\n",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1180591620717411303424",
    b"1e308",
    b"1e999",
    b"-1",
    b"0",
    b"[0,9223372036854775808]",
    b'"__metadata__"',
    b'{"$float":"nan"}',
    b'{"$bytes":"!"}',
    b'"dtype":"F64"',
    b"@digest",
    b"@size",
    b"[" * 200,
    b'{"a":' * 200,
    b"9" * 4400,
)
LONGEST = 64 * 2**10


def mutated(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """The input with one to four changes."""
    for _ in range(dice.randint(1, 4)):
        data = _changed(data, others, dice)[:LONGEST]
    return data


def _changed(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    end = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 32, 200)))
    way = dice.randrange(8)
    if way == 0:  # a flipped bit
        return (
            data[:at]
            + bytes(byte ^ 1 << dice.randrange(8) for byte in data[at:end][:1])
            + (data[at + 1 :])
        )
    if way == 1:  # other bytes
        return data[:at] + dice.randbytes(end - at) + data[end:]
    if way == 2:  # something left out
        return data[:at] + data[end:]
    if way == 3:  # something twice
        return data[:end] + data[at:end] * dice.choice((1, 1, 50)) + data[end:]
    if way == 4:  # a token more
        return data[:at] + dice.choice(TOKENS) + data[at:]
    if way == 5:  # a number or word replaced
        return _replaced(data, at, dice)
    if way == 6:  # the end of another
        other = dice.choice(others)
        return data[:at] + other[dice.randint(0, len(other)) :]
    return data[:at]


def _replaced(data: bytes, at: int, dice: random.Random) -> bytes:
    """A token in the place of the next number or string."""
    start = next((i for i in range(at, len(data)) if data[i : i + 1] in b'0123456789"'), at)
    end = start + 1
    while end < len(data) and data[end : end + 1] not in b',:}]" ':
        end += 1
    return data[:start] + dice.choice(TOKENS) + data[end:]
