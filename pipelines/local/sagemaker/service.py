"""The SageMaker service: moto's server, with the actions replaced that moto only pretends.

moto answers StartPipelineExecution with instant success, checks no policies and keeps nothing.
Here executions run (:mod:`engine`), roles' policies decide (:mod:`authority`), approvals emit
their event (:mod:`packages`), and a journal brings the registry back at the next start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.local.emulators.authority import Authority, sagemaker_resource
from pipelines.local.emulators.calls import CallLog
from pipelines.local.home import ACCOUNT, REGION
from pipelines.local.sagemaker import execution_actions, journal
from pipelines.local.sagemaker.engine import Engine
from pipelines.local.sagemaker.jobs.runner import JobRunner
from pipelines.local.sagemaker.moto_actions import Action, answered_by, not_supported
from pipelines.local.sagemaker.packages import PackageActions
from pipelines.local.sagemaker.pipeline_actions import CHECKED, checked
from pipelines.local.sagemaker.roles import Roles


class SageMaker:
    """The service on a loopback port. One in a process: moto's classes are extended in place."""

    def __init__(self, folder: Path, port: int, pipeline_role: str, calls: CallLog) -> None:
        """``pipeline_role``: ARN of the role of our own pipelines."""
        os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT  # moto reads it when it is imported
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        self._folder = folder
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._serving = False
        self._pipeline_role = pipeline_role
        self._calls = calls
        self._authority: Authority | None = None
        self._s3: Any = None
        self._journal = journal.Journal(folder / "journal.jsonl")
        self._packages = PackageActions(
            self._journal, lambda response: calls.identity(response.get_access_key())
        )
        self._executions = execution_actions.ExecutionActions()

    def start(self, client: Callable[[str], Any]) -> None:
        """Serve, and bring back what earlier clouds registered.

        ``client`` makes boto3 clients of this cloud, SageMaker itself included.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._extend_moto()
        self._server.start()
        self._serving = True
        self._journal.replay(client("sagemaker"))
        self._packages.events = client("events")
        self._authority = Authority(client("iam"), self._calls)
        self._s3 = client("s3")
        roles = Roles(client)
        own = roles.clients(self._pipeline_role)
        for name in ("sqs", "lambda", "sagemaker"):
            _ = own[name]  # made now, not when the first run waits for them
        jobs = JobRunner(
            folder=self._folder,
            logs=self._folder.parent / "logs" / "jobs",
            s3=lambda role: roles.clients(role)["s3"],
            credentials=roles.credentials,
        )
        prefix = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
        self._executions.engine = Engine(self._folder / "executions", roles.clients, prefix, jobs)

    def stop(self) -> None:
        """Stop serving, if it has started."""
        if self._serving:
            self._server.stop()
            self._serving = False

    def _extend_moto(self) -> None:
        from moto.sagemaker.responses import SageMakerResponse

        for action in journal.ACTIONS:
            original: Action = getattr(SageMakerResponse, action, not_supported(action))
            kept = self._packages.journalled(action, original)
            if action in CHECKED:
                kept = checked(kept, self._read, lambda: self._journal.replaying)
            setattr(SageMakerResponse, action, kept)
        for action in execution_actions.ACTIONS:
            setattr(SageMakerResponse, action, answered_by(getattr(self._executions, action)))
        for action, field in execution_actions.JOBS.items():
            known = self._executions.described_job(field, getattr(SageMakerResponse, action))
            setattr(SageMakerResponse, action, known)
        SageMakerResponse.describe_model_package = self._packages.described(
            SageMakerResponse.describe_model_package
        )
        SageMakerResponse._authenticate_and_authorize_normal_action = self._authorize()

    def _read(self, bucket: str, key: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def _authorize(self) -> Callable[[Any, str], None]:
        """What replaces moto's check of policies, which allows everything."""
        from moto.core.exceptions import AccessDeniedError

        def check(response: Any, _resource: str) -> None:
            if self._authority is None:
                return
            key, action = response.get_access_key(), f"sagemaker:{response._get_action()}"
            engine = self._executions.engine
            # A callback's answer names a token only: its resource is the execution that waits.
            token = response.params.get("CallbackToken", "")
            waiting = engine.callbacks.execution_of(token) if engine is not None else None
            resource = waiting or sagemaker_resource(response.params)
            if not self._authority.allows(key, action, resource):
                raise AccessDeniedError(user_arn=str(self._calls.principal(key)), action=action)

        return check
