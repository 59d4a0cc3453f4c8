"""Predictions are counted, and no row is kept."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fakes.turbine import Turbine
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol.messages import (
    COMMAND_LIMIT,
    Heartbeat,
    Served,
    Serving,
    encode,
)
from edge.serving.model import Model
from edge.serving.statistics import BLOCK, FIRST, Tally, Window, serving, sweep


def test_predictions_inputs_and_residuals_are_counted_and_no_row_is_kept(turbine: Turbine) -> None:
    turbine.use(1.0, turbine.app())
    model = Model(turbine.home)
    rows = np.column_stack([np.linspace(0, 10, 600), np.full(600, 123456.789)])
    model.predict(
        [{"wind": float(a), "angle": float(b)} for a, b in rows],
        truth=(rows.sum(axis=1) - 2).tolist(),
    )
    with pytest.raises(ValueError, match="one too many"):
        model.predict([[1.0, 2.0, 3.0]])
    model.close()
    found = turbine.serving()
    assert (found.predictions, found.errors) == (600, 1)
    wind = next(served for served in found.inputs if served.name == "wind")
    assert (wind.first.count, wind.recent.count) == (FIRST, 100)
    assert wind.first.mean == pytest.approx(rows[:FIRST, 0].mean(), rel=1e-4)
    assert wind.recent.std == pytest.approx(rows[FIRST:, 0].std(), rel=1e-4)
    assert found.residuals is not None
    assert found.residuals.first.mean == pytest.approx(2.0, rel=1e-3)
    left = "".join(file.read_text() for file in (turbine.home / "serving").iterdir())
    assert len(left) < 2000


def test_counts_outlive_processes_and_begin_anew_with_another_model(turbine: Turbine) -> None:
    app = turbine.app()
    turbine.use(1.0, app)
    code = (
        "from edge.serving.model import Model\n"
        f"Model({str(turbine.home)!r}).predict([[1.0, 2.0]] * 300)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True)
    folder = turbine.home / "serving"
    assert (
        turbine.serving().predictions,
        turbine.serving().inputs[0].first.count,
        turbine.serving().inputs[0].recent.count,
    ) == (600, 500, 100)
    sweep(folder, turbine.sequence)
    assert [file.name for file in folder.iterdir()] == ["ended.json"]
    assert turbine.serving().predictions == 600
    sweep(folder, turbine.sequence)
    turbine.use(2.0, app)
    assert serving(folder, turbine.sequence) is None
    (folder / "1-broken.json").write_text("{")
    assert serving(folder, turbine.sequence) is None


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=40), max_size=12))
def test_windows_add_up_like_the_values_themselves(parts: list[list[float]]) -> None:
    values = [value for part in parts for value in part]
    with tempfile.TemporaryDirectory() as folder:
        tally = Tally(Path(folder), 1)
        for part in parts:
            tally.observe({"x": np.array(part)}, len(part))
        tally.write(now=True)
        found = serving(Path(folder), 1)
    if not values:
        assert found is None
        return
    assert found is not None
    assert found.inputs[0].first.count == min(len(values), FIRST)
    assert found.inputs[0].first.mean == pytest.approx(np.mean(values[:FIRST]), rel=1e-4, abs=1e-3)
    assert found.inputs[0].first.std == pytest.approx(np.std(values[:FIRST]), rel=1e-4, abs=1e-2)


def test_the_latest_window_forgets_what_is_old(tmp_path: Path) -> None:
    tally = Tally(tmp_path, 1)
    for value in (1.0, 2.0, 3.0, 9.0):
        tally.observe({"x": np.full(BLOCK, value)}, BLOCK)
    tally.write(now=True)
    found = serving(tmp_path, 1)
    assert found is not None
    assert found.inputs[0].first.mean == 1.0
    assert found.inputs[0].recent.mean == 9.0


def test_an_input_with_the_residuals_name_is_an_input(tmp_path: Path) -> None:
    tally = Tally(tmp_path, 1)
    tally.observe({":residual": np.ones(3)}, 3)
    tally.write(now=True)
    found = serving(tmp_path, 1)
    assert found is not None
    assert (found.residuals, [served.name for served in found.inputs]) == (None, ["residual"])


def test_numbers_that_are_none_do_no_harm(tmp_path: Path) -> None:
    tally = Tally(tmp_path, 1)
    tally.observe(
        {
            "x": np.array([np.nan, np.inf, 1.0, 1e300]),
            "\x1b[31m<b>": np.ones(3),
            "": np.ones(3),
            "w" * 90: np.ones(3),
        },
        4,
    )
    tally.write(now=True)
    found = serving(tmp_path, 1)
    assert found is not None
    encode(Heartbeat(state="idle", serving=found))  # a heartbeat takes it
    assert Window() + Window() == Window()


def test_a_heartbeat_with_all_statistics_stays_small() -> None:
    moments = Window(10**9, -123456.789, 1e22).moments()
    told = Serving(
        predictions=10**9, inputs=[Served("a" * 40, moments, moments) for _ in range(16)]
    )
    assert len(encode(Heartbeat(state="idle", apps=["a" * 64] * 4, serving=told))) < COMMAND_LIMIT
