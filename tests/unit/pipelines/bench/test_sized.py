"""The app of the benchmarks: its loss is known, and it notes when each device was asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from edge.training.app_bundle import load_app
from pipelines.bench import flower
from pipelines.bench.app.sized import client_app, server_app
from pipelines.bench.cpu import CpuMeter
from pipelines.bench.stamps import devices_asked, round_seconds
from pipelines.errors import UsageError

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


def test_a_round_lasts_from_its_first_device_to_the_next_rounds_first(tmp_path: Path) -> None:
    stamps = {
        "0": "1 train 10.0 7\n1 evaluate 11.0 7\n2 train 20.5 7\n3 train 22.0 7\n",
        "1": "1 train 9.0 8\n2 train 20.0 8\n3 train 23.0 8\n4 train 25.0 8\n",
    }
    for name, text in stamps.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert round_seconds(tmp_path) == [2.0, 3.0]  # the first round, of 11 s, is left out
    assert devices_asked(tmp_path) == {"0", "1"}
    assert round_seconds(tmp_path / "nothing") == []


def test_a_deployment_of_flowers_that_does_not_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "START_SECONDS", 0.1)
    monkeypatch.setattr(flower, "_tool", lambda name: "/bin/false")
    with pytest.raises(UsageError, match=r"SuperLink did not start: see the logs in"):
        flower.run_on_flower(tmp_path, APP, 1, {}, 1.0)
    assert "insecure = true" in (tmp_path / "config.toml").read_text()


def test_the_cpu_time_of_processes_that_have_ended_counts() -> None:
    with CpuMeter(os.getpid()) as meter:
        before = meter.seconds()
        busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass\ninput()"]
        with subprocess.Popen(busy, stdin=subprocess.PIPE) as child:
            deadline = time.monotonic() + 30
            while meter.seconds() - before < 0.3 and time.monotonic() < deadline:
                time.sleep(0.05)
            child.communicate(b"\n")
        assert meter.seconds() - before >= 0.3
