"""The rules withstand what the documentation says."""

from __future__ import annotations

import pytest
from support.paths import ROOT

from pipelines.chaos import sybils


@pytest.mark.parametrize("rule", [sybils.metric_keys, sybils.weight_limit, sybils.norm_limit])
def test_a_minority_is_refused_and_a_majority_is_not(rule: sybils.Withstands) -> None:
    assert rule(49, 0)
    assert not rule(60, 0)


def test_three_of_a_hundred_that_lie_well_do_not_decide() -> None:
    assert sybils.large_lie(40, 0)
    assert sybils.best_lie(3, 0)
    assert not sybils.best_lie(40, 0)


def test_the_documentation_names_every_rule() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert all(f"| {name} |" in text for name in sybils.RULES)
