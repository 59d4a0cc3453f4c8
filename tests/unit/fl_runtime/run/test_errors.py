"""The errors of a run: one sentence for people, a code and an exit code for programs."""

from __future__ import annotations

import pytest

from edge.errors import MLEdgeOpsError
from fl_runtime.run.errors import CAUSE_LIMIT, ObjectMissing, RunFailed, SettingMissing


def test_a_reason_fits_into_sagemakers_field() -> None:
    assert str(RunFailed("x", "short")) == "short"
    long = str(RunFailed("x", "y" * 1000))
    assert (len(long), long[-3:]) == (CAUSE_LIMIT, "...")


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (RunFailed("no-model", "?"), "no-model", 1),
        (ObjectMissing("?"), "object-missing", 1),
        (SettingMissing("?"), "setting-missing", 2),
    ],
)
def test_each_says_its_code_and_exit_code(error: MLEdgeOpsError, code: str, exit_code: int) -> None:
    assert isinstance(error, MLEdgeOpsError)
    assert (error.code, error.exit_code) == (code, exit_code)
