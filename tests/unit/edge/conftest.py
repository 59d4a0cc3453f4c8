"""Fixtures of the device's unit tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.turbine import Turbine


@pytest.fixture
def turbine() -> Iterator[Turbine]:
    """In a folder with a short path: sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Turbine(Path(folder))
