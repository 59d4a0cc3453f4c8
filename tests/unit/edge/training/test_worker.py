"""Whatever an app does becomes a result with a reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from support.paths import APPS

from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.training.app_bundle import load_app
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import WorkerProcess


def job_of(folder: Path, **changes: object) -> WorkerJob:
    blob = encode_records(
        Records(
            arrays={"arrays": {"0": np.zeros((64, 10), np.float32), "1": np.zeros(10, np.float32)}}
        )
    )
    (folder / "arrays").write_bytes(blob)
    app = load_app(APPS / "digits")
    fields = {
        "app": str(app.folder),
        "client_app": app.client_app,
        "kind": "train",
        "message_id": "m",
        "flower_run_id": 1,
        "node_id": 2,
        "node_config": {"partition-id": 0, "num-partitions": 3},
        "run_config": app.config,
        "update_path": str(folder / "update"),
        "content": encode_skeleton(Records(configs={"config": {}}, order=("arrays", "config"))),
        "arrays_path": str(folder / "arrays"),
    }
    return WorkerJob(**{**fields, **changes})


def in_worker(*jobs: WorkerJob, seconds: float = 60.0) -> list[WorkerResult]:
    async def main() -> list[WorkerResult]:
        worker = WorkerProcess({"OMP_NUM_THREADS": "1"})
        try:
            return [await worker.run(job, seconds) for job in jobs]
        finally:
            await worker.stop()

    return asyncio.run(main())


def write_app(folder: Path, body: str) -> Path:
    (folder / "bad").mkdir()
    (folder / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nclientapp = "bad.client:app"\n'
    )
    (folder / "bad" / "client.py").write_text(body)
    return folder


RAISES = """
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    {}
"""


def test_a_four_method_client_trains_and_evaluates_in_the_worker_process(tmp_path: Path) -> None:
    trained, evaluated = in_worker(job_of(tmp_path), job_of(tmp_path, kind="evaluate"))
    assert trained.ok, trained.reason
    records = decode_records((tmp_path / "update").read_bytes())
    assert list(records.arrays["arrays"]) == ["0", "1"]
    assert records.metrics["metrics"]["num-examples"] == 479
    assert digest((tmp_path / "update").read_bytes()) == trained.update.digest  # type: ignore[union-attr]
    assert set(decode_skeleton(evaluated.content).metrics["metrics"]) == {
        "num-examples",
        "loss",
        "accuracy",
    }


def test_a_client_speaks_to_an_older_server_in_its_own_records(tmp_path: Path) -> None:
    blob = encode_records(
        Records(
            arrays={
                "fitins.parameters": {
                    "0": np.zeros((64, 10), np.float32),
                    "1": np.zeros(10, np.float32),
                }
            }
        )
    )
    (tmp_path / "old").write_bytes(blob)
    content = encode_skeleton(
        Records(configs={"fitins.config": {}}, order=("fitins.parameters", "fitins.config"))
    )
    (trained,) = in_worker(job_of(tmp_path, content=content, arrays_path=str(tmp_path / "old")))
    assert trained.ok, trained.reason
    answer = decode_records((tmp_path / "update").read_bytes())
    assert set(answer.names()) == {
        "fitres.parameters",
        "fitres.num_examples",
        "fitres.metrics",
        "fitres.status",
    }


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("import missing_module", "app-load", "missing_module"),
        ("app = 3", "app-load", "not a ClientApp"),
        (
            RAISES.format("raise ValueError('no data on this device')"),
            "app-error",
            "no data on this device",
        ),
        (RAISES.format("import os; os._exit(9)"), "worker-died", "code 9"),
        (
            RAISES.format("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
            "worker-died",
            "signal 9",
        ),
        (RAISES.format("raise MemoryError"), "out-of-memory", "memory"),
        (RAISES.format("return 3"), "app-error", "Error"),
    ],
)
def test_whatever_an_app_does_becomes_an_outcome(
    tmp_path: Path, body: str, code: str, text: str
) -> None:
    folder = write_app(tmp_path, body)
    bad = job_of(tmp_path, app=str(folder), client_app="bad.client:app")
    outcome, after = in_worker(bad, job_of(tmp_path))
    assert (outcome.ok, outcome.code) == (False, code)
    assert text in outcome.reason
    assert after.ok, "the next command finds a worker"


def test_an_app_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    folder = write_app(tmp_path, RAISES.format("import time; time.sleep(100)"))
    (outcome,) = in_worker(
        job_of(tmp_path, app=str(folder), client_app="bad.client:app"), seconds=2.0
    )
    assert outcome.code == "deadline"


def test_an_app_may_print_without_harm(tmp_path: Path) -> None:
    folder = write_app(
        tmp_path,
        RAISES.format(
            "print('x' * 100000); import sys; sys.stdout.flush(); raise ValueError('after print')"
        ),
    )
    (outcome,) = in_worker(job_of(tmp_path, app=str(folder), client_app="bad.client:app"))
    assert "after print" in outcome.reason
