"""The app of the benchmarks: its loss is known, and it notes when each device was asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from edge.training.app_bundle import load_app
from pipelines.bench.app.sized import client_app, server_app

APP = Path(client_app.__file__).parents[1]


def asked(kind: str, folder: Path | str) -> tuple[Any, Any]:
    arrays = ArrayRecord({"w": Array(np.full(4, 2.0, np.float32))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 7})})
    context = SimpleNamespace(node_config={"partition-id": 3}, run_config={"stamps": str(folder)})
    return SimpleNamespace(content=content), context


def test_each_request_leaves_a_stamp_of_its_round_kind_and_moment(tmp_path: Path) -> None:
    for kind in ("train", "evaluate"):
        client_app.stamp(*asked(kind, tmp_path), kind)
    lines = [line.split() for line in (tmp_path / "3.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["7", "train"], ["7", "evaluate"]]
    assert float(lines[0][2]) <= float(lines[1][2])
    client_app.stamp(*asked("train", ""), "train")  # nobody wants stamps


def test_the_app_is_one_that_flower_and_we_load() -> None:
    app = load_app(APP)
    assert (app.name, app.devices, app.settings["metric"]) == ("sized", 8, "loss")
    assert server_app.app is not None
