"""Predictions on the device: only by a signed model, from this process or over the socket; counted,
and nothing else leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes.keys import document, trust
from fakes.objects import FileObjects
from hypothesis import given
from hypothesis import strategies as st
from support.paths import APPS
from test_agent import Device, instant, with_device

from edge.identity.trust import Trust
from edge.protocol.messages import (
    COMMAND_LIMIT,
    Envelope,
    Heartbeat,
    Served,
    Serving,
    decode,
    encode,
)
from edge.protocol.records import Records, digest, encode_records
from edge.protocol.signed import Manifest
from edge.serving.model import POOLED, Model, NoModel, columns, residuals
from edge.serving.model_store import ModelStore, read_active
from edge.serving.socket_server import LINE_LIMIT, SOCKET, PredictSocket
from edge.serving.statistics import BLOCK, FIRST, Tally, Window, serving, sweep
from edge.training.app_bundle import load_app

PREDICT = """
import numpy as np

def predict(arrays, inputs):
    table = inputs if isinstance(inputs, np.ndarray) else inputs.to_numpy(float)
    if table.shape[1] == 3:
        raise ValueError("three columns are one too many")
    if table.shape[1] == 5:
        import os
        os._exit(9)
    return table.sum(axis=1) * float(arrays["w"][0])
"""


class Turbine:
    """A device's folder with an app and models."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        trust(home / "trust.json")
        (home / "cache").mkdir(exist_ok=True)
        self.objects = FileObjects(home / "cache")
        self.store = ModelStore(
            home / "models", self.objects, Trust.of(home / "trust.json"), "f", lambda: 1000.0
        )
        self.sequence = 0

    def app(self, code: str = PREDICT, reference: str = "power:predict") -> str:
        name = digest((code + reference).encode())
        folder = self.home / "apps" / name
        folder.mkdir(parents=True)
        (folder / "power.py").write_text(code)
        hook = f'[tool.mledgeops]\npredict = "{reference}"\n' if reference else ""
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "power"\n[tool.flwr.app.components]\nclientapp = "power:app"\n{hook}'
        )
        return name

    def use(self, factor: float, app: str) -> None:
        self.sequence += 1
        weights = encode_records(Records(arrays={"arrays": {"w": np.array([factor], np.float32)}}))
        manifest = Manifest(
            fleet="f",
            model_version=f"power/{self.sequence}",
            digest=digest(weights),
            size=len(weights),
            app=app,
            metric="rmse",
            goal="minimize",
            tolerance=0.0,
            sequence=self.sequence,
            forced=True,
        )
        self.objects.data["url"] = weights

        async def test(*_: Any) -> float:
            return 0.0

        asyncio.run(self.store.install(document(manifest), test))

    def serving(self) -> Serving:
        found = serving(self.home / "serving", self.sequence)
        assert found is not None
        return found


@pytest.fixture
def turbine() -> Iterator[Turbine]:
    """In a folder with a short path: sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Turbine(Path(folder))


def test_the_model_in_use_predicts_and_the_next_one_takes_over_at_the_next_call(
    turbine: Turbine,
) -> None:
    model = Model(turbine.home)
    with pytest.raises(NoModel, match="no model yet"):
        model.predict([[1.0, 2.0]])
    app = turbine.app()
    turbine.use(2.0, app)
    assert model.predict([[1.0, 2.0], [3.0, 4.0]]).tolist() == [6.0, 14.0]
    assert model.version == "power/1"
    turbine.use(10.0, app)
    assert model.predict([{"wind": 1.0, "angle": 2.0}]).tolist() == [30.0]
    assert model.version == "power/2"
    # another version of the app, with the same module names
    turbine.use(1.0, turbine.app(PREDICT.replace("table.sum(axis=1)", "table.max(axis=1)")))
    assert model.predict([[1.0, 2.0]]).tolist() == [2.0]
    assert read_active(turbine.home / "models").since == 1000.0


def test_what_was_not_signed_never_predicts(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())
    pointer = turbine.home / "models" / "active.json"
    active = json.loads(pointer.read_text())
    weights = turbine.home / "models" / active["manifest"]["digest"]
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\x00")
    with pytest.raises(NoModel, match="not those that were signed"):
        Model(turbine.home).predict([[1.0, 2.0]])
    weights.write_bytes(good)
    for change in (
        {"signed": None},
        {
            "signed": {
                **active["signed"],
                "manifest": active["signed"]["manifest"].replace("power/1", "power/9"),
            }
        },
    ):
        pointer.write_text(json.dumps({**active, **change}))
        with pytest.raises(NoModel):
            Model(turbine.home).predict([[1.0, 2.0]])
    other = Manifest(
        **{
            **msgspec.to_builtins(read_active(turbine.home / "models").manifest),
            "model_version": "power/7",
        }
    )
    # only the signed text counts
    pointer.write_text(json.dumps({**active, "manifest": msgspec.to_builtins(other)}))
    model = Model(turbine.home)
    model.predict([[1.0, 2.0]])
    assert model.version == "power/1"


def test_an_app_without_predict_or_with_one_that_cannot_be_loaded_says_so(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app(reference=""))
    with pytest.raises(NoModel, match="names no predict function"):
        Model(turbine.home).predict([[1.0, 2.0]])
    turbine.use(2.0, turbine.app("import nowhere", "power:predict"))
    with pytest.raises(NoModel, match="cannot be imported"):
        Model(turbine.home).predict([[1.0, 2.0]])


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
    code = f"from edge.serving.model import Model; Model({str(turbine.home)!r}).predict([[1.0, 2.0]] * 300)"
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


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (np.zeros((4, 2)), ["0", "1"]),
        (np.zeros(4), ["0"]),
        (np.zeros((4, 64)), [POOLED]),
        (np.zeros((4, 8, 8)), [POOLED]),
        (np.array(["a"]), []),
    ],
)
def test_inputs_become_columns(table: np.ndarray, names: list[str]) -> None:
    assert list(columns(table)) == names


@pytest.mark.parametrize(
    ("outputs", "truth", "expected"),
    [
        ([1.5, 2.0], [1.0, 2.0], [0.5, 0.0]),
        ([1, 2], [1, 3], [0.0, 1.0]),
        (["a", "b"], ["a", "a"], [0.0, 1.0]),
        ([1.0], None, None),
        ([1.0], [1.0, 2.0], None),
    ],
)
def test_residuals_are_differences_or_mistakes(
    outputs: list, truth: list | None, expected: list | None
) -> None:
    found = residuals(np.array(outputs), truth)
    assert (found.tolist() if found is not None else None) == expected


def served(turbine: Turbine, talk: Any) -> Any:
    """Run the socket while ``talk`` speaks to it."""

    async def session() -> Any:
        work = asyncio.create_task(PredictSocket(turbine.home, {}).run())
        while not (turbine.home / SOCKET).exists():
            await asyncio.sleep(0.01)
        try:
            return await talk(str(turbine.home / SOCKET))
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    return asyncio.run(session())


async def ask(path: str, *lines: bytes) -> list[dict]:
    reader, writer = await asyncio.open_unix_connection(path, limit=2**22)
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append(json.loads(await reader.readline() or b"{}"))
    writer.close()
    return answers


def test_the_socket_answers_programs_in_any_language(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())

    async def talk(path: str) -> list[dict]:
        assert os.stat(path).st_mode & 0o077 == 0
        return await ask(
            path,
            b'{"inputs": [[1, 2]]}',
            b"nonsense",
            b'{"inputs": [], "more": 1}',
            b'{"inputs": []}',
            b'{"inputs": [[1, 2, 3]]}',
            b'{"inputs": [[1, 2, 3, 4, 5]]}',
            b'{"inputs": [{"a": 1, "b": 4}], "truth": [9]}',
        )

    answers = served(turbine, talk)
    assert answers[0] == {"model_version": "power/1", "outputs": [6.0]}
    assert [answer["error"]["code"] for answer in answers[1:6]] == [
        "malformed",
        "malformed",
        "predict",
        "predict",
        "predict",
    ]
    assert "exited with code 9" in answers[5]["error"]["message"]
    assert answers[6] == {"model_version": "power/1", "outputs": [10.0]}  # by a new process
    assert not (turbine.home / SOCKET).exists()
    assert turbine.serving().predictions == 2


def test_a_client_that_floods_or_hangs_up_harms_nobody(turbine: Turbine) -> None:
    turbine.use(2.0, turbine.app())

    async def talk(path: str) -> list[dict]:
        (too_long,) = await ask(path, b"x" * (LINE_LIMIT * 2))
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"inputs": [[1')
        writer.close()
        many = [await asyncio.open_unix_connection(path) for _ in range(40)]
        for _, other in many:
            other.close()
        await asyncio.sleep(0.2)
        return [too_long, *await ask(path, b'{"inputs": [[1, 2]]}')]

    answers = served(turbine, talk)
    assert answers[0].get("error", {}).get("code") in ("too-long", None)
    assert answers[1]["outputs"] == [6.0]


def test_a_folder_too_deep_for_a_socket_is_no_failure(turbine: Turbine) -> None:
    deep = turbine.home / ("d" * 90)
    deep.mkdir()
    asyncio.run(asyncio.wait_for(PredictSocket(deep, {}).run(), 5.0))
    assert not list(deep.iterdir())
    (turbine.home / SOCKET).mkdir()  # something that is no socket stands in its place
    asyncio.run(asyncio.wait_for(PredictSocket(turbine.home, {}).run(), 5.0))


def test_the_digits_app_reads_digits(turbine: Turbine) -> None:
    """What data scientists ship, as it runs on a device."""
    app = load_app(APPS / "digits")
    shutil.copytree(
        APPS / "digits",
        turbine.home / "apps" / app.digest(),
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    sys.path.insert(0, str(APPS / "digits"))
    try:
        from digits.client_app import load
    finally:
        sys.path.remove(str(APPS / "digits"))
    x, y, _, _ = load(0, 1)
    weights = {
        "0": np.stack([x[y == n].mean(axis=0) for n in range(10)], axis=1).astype(np.float32) * 20,
        "1": np.zeros(10, np.float32),
    }
    turbine.sequence += 1
    blob = encode_records(Records(arrays={"arrays": weights}))
    manifest = Manifest(
        fleet="f",
        model_version="digits/1",
        digest=digest(blob),
        size=len(blob),
        app=app.digest(),
        metric="accuracy",
        goal="maximize",
        tolerance=0,
        sequence=1,
        forced=True,
    )
    turbine.objects.data["url"] = blob

    async def test(*_: Any) -> float:
        return 0.0

    asyncio.run(turbine.store.install(document(manifest), test))
    model = Model(turbine.home)
    said = model.predict(x[:200].tolist(), truth=y[:200].tolist())
    assert (said == y[:200]).mean() > 0.5
    model.close()
    found = turbine.serving()
    assert found.inputs[0].name == POOLED
    assert found.residuals is not None
    assert found.residuals.first.mean == pytest.approx(1 - (said == y[:200]).mean(), abs=1e-6)


def test_the_agent_serves_the_socket_and_tells_of_it_in_its_heartbeats(turbine: Turbine) -> None:
    shutil.rmtree(turbine.home / "apps", ignore_errors=True)
    turbine.use(2.0, turbine.app())

    async def test(device: Device) -> None:
        while not (turbine.home / SOCKET).exists():
            await asyncio.sleep(0.01)
        (answer,) = await ask(str(turbine.home / SOCKET), b'{"inputs": [[1, 2], [3, 4]]}')
        assert answer == {"model_version": "power/1", "outputs": [6.0, 14.0]}
        before = len(await device.transport.until(1, "/heartbeat"))
        beat = decode(
            msgspec.json.decode(
                (await device.transport.until(before + 2, "/heartbeat"))[-1], type=Envelope
            ).body,
            Heartbeat,
        )
        assert (beat.model, beat.since) == ("power/1", 1000.0)
        assert beat.serving is not None
        assert (beat.serving.predictions, [served.name for served in beat.serving.inputs]) == (
            2,
            ["0", "1"],
        )

    with_device(turbine.home, instant(), test)
