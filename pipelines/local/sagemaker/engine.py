"""Runs SageMaker pipeline definitions: the JSON that the SDK writes and that AWS would run.

docs/decisions/0003 says why this reads the definition rather than extends the SDK's local mode.
"""

from __future__ import annotations

import logging
import secrets
import string
import threading
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from pipelines.local.sagemaker.executions import Callbacks, ExecutionFiles, PipelineExecution
from pipelines.local.sagemaker.steps import ExecutionStopped, StepFailed, StepRunner
from pipelines.local.sagemaker.values import parameters_of

logger = logging.getLogger(__name__)

REASON_LIMIT = 1024


class Engine:
    """All executions of one local cloud, each in a thread of its own."""

    def __init__(self, folder: Path, clients: dict[str, Any], arn_prefix: str) -> None:
        """``clients``: by service (sqs, lambda, sagemaker). ``folder``: keeps the executions."""
        self._clients = clients
        self._prefix = arn_prefix
        self._files = ExecutionFiles(folder)
        self._executions = self._files.load()
        self.callbacks = Callbacks()

    def start(
        self, pipeline: str, definition: dict[str, Any], given: dict[str, str]
    ) -> PipelineExecution:
        """Start an execution.

        Raises:
            ValueError: A parameter is not one that the pipeline declares.

        """
        parameters = parameters_of(definition, given)
        alphabet = string.ascii_lowercase + string.digits
        number = "".join(secrets.choice(alphabet) for _ in range(12))
        arn = f"{self._prefix}:pipeline/{pipeline}/execution/{number}"
        execution = PipelineExecution(arn, pipeline, definition, parameters)
        self._files.save(execution)
        self._executions[arn] = execution
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return execution

    def get(self, arn: str) -> PipelineExecution | None:
        """An execution by ARN."""
        return self._executions.get(arn)

    def of_pipeline(self, pipeline: str) -> list[PipelineExecution]:
        """A pipeline's executions, newest first."""
        found = (e for e in self._executions.values() if e.pipeline == pipeline)
        return sorted(found, key=lambda e: e.started_at, reverse=True)

    def stop(self, execution: PipelineExecution) -> None:
        """Ask an execution to stop; it has stopped once its callback was answered."""
        if execution.status == "Executing":
            execution.status = "Stopping"
            execution.stopping.set()
            self._files.save(execution)

    def _run(self, execution: PipelineExecution) -> None:
        steps = StepRunner(execution, self._clients, self.callbacks, self._files.save)
        try:
            steps.run(execution.definition["Steps"])
            execution.status = "Succeeded"
        except ExecutionStopped:
            execution.status = "Stopped"
        except StepFailed as error:
            execution.status, execution.reason = "Failed", str(error)
        except (ClientError, BotoCoreError, KeyError, ValueError, OSError) as error:
            logger.exception("pipeline-crashed")
            execution.status = "Failed"
            reason = f"The local cloud could not run a step: {error}"
            execution.reason = reason[:REASON_LIMIT]
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
