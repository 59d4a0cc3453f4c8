"""Training workers without processes."""

from __future__ import annotations

from collections.abc import Callable

from edge.training.worker import Job, Outcome


class InstantWorkers:
    """Workers that answer from a function, and keep the jobs they were given."""

    def __init__(self, answer: Callable[[Job], Outcome]) -> None:
        self.answer = answer
        self.jobs: list[Job] = []

    async def run(self, job: Job, seconds: float) -> Outcome:
        self.jobs.append(job)
        return self.answer(job)

    async def stop(self) -> None:
        return
