"""The registry's errors are under the root, each with a code of its own."""

from __future__ import annotations

from edge.errors import MLEdgeOpsError
from registry.errors import RegistryError, RolloutBusy


def test_errors_are_under_the_root_and_exit_as_bad_usage() -> None:
    for error in (RegistryError, RolloutBusy):
        assert issubclass(error, MLEdgeOpsError)
        assert error.exit_code == 2
    assert (RegistryError.code, RolloutBusy.code) == ("registry", "rollout-busy")
