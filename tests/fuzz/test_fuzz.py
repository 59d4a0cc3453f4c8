"""What fuzzing found stays found: the corpus, and mutations of it for a few seconds."""

from __future__ import annotations

import random
import time
import zlib

import pytest

from fuzz.seeds import seeds
from fuzz.targets import TARGETS, kept, measured
from pipelines.chaos.devices.mutations import mutated

SECONDS = 1.5
"""Of mutations for each target."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    for data in (*seeds(name), *kept(name)):
        measured(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus_break_nothing(name: str) -> None:
    """A seed of its own for each target. The input that fails is in the failure's message."""
    target, known = TARGETS[name], [*seeds(name), *kept(name)]
    dice = random.Random(zlib.crc32(name.encode()))
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or count < 50:
        data = mutated(dice.choice(known), known, dice)
        try:
            # Measuring memory costs half the speed: one in eight.
            measured(target, data) if count % 8 == 0 else target(data)
        except BaseException as error:
            pytest.fail(f"{name}: {type(error).__name__} {error} for {data!r}")
        count += 1


def test_a_broken_property_is_found() -> None:
    """Otherwise the tests above would pass for the wrong reason."""

    def hungry(data: bytes) -> None:
        assert len(bytearray(10 * 2**20))

    with pytest.raises(AssertionError, match="bytes for 3"):
        measured(hungry, b"abc")
    with pytest.raises(ZeroDivisionError):
        measured(lambda data: 1 // 0, b"")
