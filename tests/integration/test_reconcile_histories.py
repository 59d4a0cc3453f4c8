"""The reconciliation's property over many more histories than the unit tests try."""

from __future__ import annotations

import pytest
from fakes.reconcile_world import OPERATIONS, live_through
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.proof
@given(OPERATIONS, st.integers(0, 12))
@settings(max_examples=8000)
def test_any_of_8000_histories_ends_consistent(
    operations: list[tuple[str, int, int]], crash_at: int
) -> None:
    live_through(operations, crash_at)
