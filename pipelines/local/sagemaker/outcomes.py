"""How a step ends when it does not succeed."""

from __future__ import annotations

from pipelines.local.home import LocalCloudError


class StepFailed(LocalCloudError):
    """A step failed; the message is the reason that the execution shows."""

    code = "step-failed"


class JobLost(StepFailed):
    """A job ended through no fault of its script: what started it was killed. SageMaker calls it an
    internal error of the job, and a retry policy may repeat it.
    """

    code = "job-lost"


class ExecutionStopped(LocalCloudError):
    """The execution was stopped."""

    code = "execution-stopped"
