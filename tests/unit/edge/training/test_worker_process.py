"""The training subprocess: its death and its slowness become results, and the next job works."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import WorkerProcess

CRASH = """
import os, signal, sys
print("CUDA error:\\n  no kernel image", file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
PRINT = "print('x' * 100000, flush=True); app = 3"


def job_importing(folder: Path, body: str) -> WorkerJob:
    """A job whose app runs this code when it is imported."""
    (folder / "client.py").write_text(body)
    return WorkerJob(
        app=str(folder),
        client_app="client:app",
        kind="train",
        message_id="m",
        flower_run_id=1,
        node_id=2,
        node_config={},
        run_config={},
        update_path=str(folder / "update"),
        content="{}",
        arrays_path="",
    )


def run(folder: Path, *jobs: tuple[str, float]) -> list[WorkerResult]:
    async def main() -> list[WorkerResult]:
        worker = WorkerProcess({"OMP_NUM_THREADS": "1"})
        results = []
        try:
            for number, (body, seconds) in enumerate(jobs):
                (folder / str(number)).mkdir()
                job = job_importing(folder / str(number), body)
                results.append(await worker.run(job, seconds))
        finally:
            await worker.stop()
        return results

    return asyncio.run(main())


def test_a_worker_that_dies_says_so_and_the_next_job_finds_another(tmp_path: Path) -> None:
    """Also, what an app prints does not get between the frames."""
    died, after = run(tmp_path, (CRASH, 60.0), (PRINT, 60.0))
    assert (died.ok, died.code) == (False, "worker-died")
    assert "signal 9" in died.reason
    assert died.reason.endswith("CUDA error: | no kernel image")
    assert died.work_seconds > 0
    assert (after.code, "not a ClientApp" in after.reason) == ("app-load", True)


def test_a_worker_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (result,) = run(tmp_path, ("import time; time.sleep(100)", 0.1))
    assert (result.ok, result.code) == (False, "deadline")
