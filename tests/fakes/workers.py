"""Training workers without processes."""

from __future__ import annotations

from collections.abc import Callable

from edge.training.worker import WorkerJob, WorkerResult


class InstantWorkers:
    """Workers that answer from a function, and keep the jobs they were given."""

    def __init__(self, answer: Callable[[WorkerJob], WorkerResult]) -> None:
        self.answer = answer
        self.jobs: list[WorkerJob] = []

    async def run(self, job: WorkerJob, seconds: float) -> WorkerResult:
        self.jobs.append(job)
        return self.answer(job)

    async def stop(self) -> None:
        return
