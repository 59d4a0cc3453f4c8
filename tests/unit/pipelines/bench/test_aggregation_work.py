"""What ``mledgeops bench`` measures of aggregation works, at a size that takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bench.aggregation_work import STRATEGIES, WORKS, measured
from pipelines.bench.updates import devices, make, request
from pipelines.cli.commands.measure.bench_aggregation import MODEL_MIB, SIZE

WITH_LIBRARIES = {"proxy", "server"}
"""Works whose imports take seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("updates")
    make(made, 1000)
    return made


@pytest.mark.parametrize(
    "work",
    [
        *sorted(set(WORKS) - WITH_LIBRARIES),
        *(f"{w}:{s}" for w in ("ours", "flowers") for s in STRATEGIES),
    ],
)
def test_a_work_is_done_with_its_time_and_memory(folder: Path, work: str) -> None:
    done = measured(folder, work, 7)
    assert 0 < done.seconds < 60
    assert done.peak > 10


def test_more_devices_than_updates_send_the_same_ones_again(folder: Path) -> None:
    sent = [update.digest for _, update in devices(folder, 23)]
    assert len(set(sent)) == 10
    assert sent[3] == sent[13]
    assert sum(spec.shape[0] for spec in request(folder, 2).specs or []) == 1000


def test_a_model_is_as_large_as_the_bench_says() -> None:
    assert pytest.approx(SIZE * 4 / 1024 / 1024) == MODEL_MIB
