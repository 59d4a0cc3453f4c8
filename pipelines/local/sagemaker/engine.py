"""Runs SageMaker pipeline definitions: the JSON that the SDK writes and that AWS would run.

docs/decisions/0003 says why this reads the definition rather than extends the SDK's local mode.
"""

from __future__ import annotations

import functools
import logging
import secrets
import string
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.logs import event
from pipelines.local.sagemaker.definitions.checks import not_runnable
from pipelines.local.sagemaker.definitions.values import Scope, parameters_of
from pipelines.local.sagemaker.executions import Callbacks, ExecutionFiles, PipelineExecution
from pipelines.local.sagemaker.jobs.data import read
from pipelines.local.sagemaker.jobs.runner import JobRunner
from pipelines.local.sagemaker.outcomes import ExecutionStopped, StepFailed
from pipelines.local.sagemaker.steps.context import StepContext
from pipelines.local.sagemaker.steps.runner import EXECUTORS, StepRunner

logger = logging.getLogger(__name__)

REASON_LIMIT = 1024


class Engine:
    """All executions of one local cloud, each in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        clients: Callable[[str], Mapping[str, Any]],
        arn_prefix: str,
        jobs: JobRunner,
    ) -> None:
        """
        Args:
            folder: Keeps the executions.
            clients: Clients that act as a role, by service (sqs, lambda, sagemaker, s3).
            arn_prefix: Of the ARNs of pipelines.
            jobs: Runs the jobs of Processing and Training steps.

        """
        self._clients = clients
        self._prefix = arn_prefix
        self._jobs = jobs
        self._files = ExecutionFiles(folder)
        self._executions = self._files.load()
        self.callbacks = Callbacks()

    def start(
        self,
        pipeline: str,
        definition: dict[str, Any],
        given: dict[str, str],
        *,
        role: str = "",
        parallel: int = 0,
    ) -> PipelineExecution:
        """Start an execution that acts as ``role``, with so many steps at once (0: all that can).

        Raises:
            ValueError: A parameter is not one that the pipeline declares, or a step cannot be run
                here.

        """
        parameters = parameters_of(definition, given)
        if why := not_runnable(definition, functools.partial(self._why_not, pipeline)):
            raise ValueError(why)
        alphabet = string.ascii_lowercase + string.digits
        number = "".join(secrets.choice(alphabet) for _ in range(12))
        arn = f"{self._prefix}:pipeline/{pipeline}/execution/{number}"
        execution = PipelineExecution(
            arn, pipeline, definition, parameters, role=role, parallel=parallel
        )
        self._files.save(execution)
        self._executions[arn] = execution
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return execution

    def _why_not(self, pipeline: str, step: dict[str, Any]) -> str:
        if step["Type"] in EXECUTORS and step["Type"] not in ("Processing", "Training"):
            return ""
        return self._jobs.why_not(pipeline, step)

    def get(self, arn: str) -> PipelineExecution | None:
        """An execution by ARN."""
        return self._executions.get(arn)

    def of_pipeline(self, pipeline: str) -> list[PipelineExecution]:
        """A pipeline's executions, newest first."""
        found = (e for e in list(self._executions.values()) if e.pipeline == pipeline)
        return sorted(found, key=lambda e: e.started_at, reverse=True)

    def result_of(self, name_field: str, name: str) -> dict[str, Any] | None:
        """The properties of a job that an execution has run, by the field that names it."""
        for execution in list(self._executions.values()):
            with execution.lock:
                for result in execution.results.values():
                    properties: dict[str, Any] = result["Properties"]
                    if properties.get(name_field) == name:
                        return properties
        return None

    def stop(self, execution: PipelineExecution) -> None:
        """Ask an execution to stop; it has stopped once its callbacks were answered."""
        if execution.status == "Executing":
            execution.status = "Stopping"
            execution.stopping.set()
            self._files.save(execution)

    def _run(self, execution: PipelineExecution) -> None:
        try:
            self._steps(execution).run(execution.definition["Steps"])
            execution.status = "Succeeded"
        except ExecutionStopped:
            execution.status = "Stopped"
        except Exception as error:
            if not isinstance(error, StepFailed):
                logger.exception("pipeline-crashed")
            execution.status, execution.reason = "Failed", str(error)[:REASON_LIMIT]
        try:
            self._files.save(execution)
        except OSError as error:  # a full disk: the next cloud takes it for one that was cut off
            event(logger, "pipeline-not-kept", logging.ERROR, reason=str(error))
        event(
            logger,
            "pipeline-ended",
            execution=execution.arn,
            status=execution.status,
            reason=execution.reason,
        )

    def _steps(self, execution: PipelineExecution) -> StepRunner:
        clients = self._clients(execution.role)
        scope = Scope(
            execution.parameters,
            execution.arn,
            execution.pipeline,
            started_at=execution.started_at,
            read=lambda uri, limit: read(clients["s3"], uri, limit),
        )
        context = StepContext(
            execution=execution,
            scope=scope,
            clients=clients,
            callbacks=self.callbacks,
            save=self._files.save,
            jobs=self._jobs,
            history=lambda: self.of_pipeline(execution.pipeline),
        )
        return StepRunner(context)
