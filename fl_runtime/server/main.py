"""Entry point of the server task: reads the environment, makes the AWS clients, answers the task.

Exit code 0 after a success or when another server has taken over, 1 after a failure, 2 when the
environment lacks a variable. Step Functions hears of success and failure through the task token.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from edge import logs
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.aws import (
    DynamoReplies,
    IotCommands,
    ResourceNames,
    S3Objects,
    client,
    fresh_seconds,
    names_from_environment,
    setting,
)
from fl_runtime.run.blocking import BlockList
from fl_runtime.run.devices import DeviceTable
from fl_runtime.run.eligibility import eligible
from fl_runtime.run.errors import CAUSE_LIMIT, RunFailed, SettingMissing
from fl_runtime.run.mlflow_runs import ARTIFACT_ROOT_VARIABLE, mlflow_client
from fl_runtime.run.signing import kms_signer
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunTable
from fl_runtime.server.cohort_host import CohortHost
from fl_runtime.server.server import Server, ServerResources
from fl_runtime.server.task_address import own_address, own_task
from fl_runtime.server.task_token import TaskToken, keep_alive
from fl_runtime.server.telemetry.mlflow_store import MlflowStore

logger = logging.getLogger(__name__)

ABORT_SECONDS = 5.0
"""How long the app has to end by itself after its run was aborted."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The task's environment."""

    names: ResourceNames
    run: str
    token: str
    commands_key: str
    """KMS key that signs commands."""
    artifact_root: str | None
    fresh_seconds: float
    address: Callable[[], str]
    """The server's IP address, as its proxies see it."""
    task: Callable[[], str]
    """ARN of the ECS task."""


def read_settings(environ: Mapping[str, str]) -> ServerSettings:
    """Read the environment; raises SettingMissing naming the first variable that is not there."""
    given = dict(environ)
    return ServerSettings(
        names=names_from_environment(given),
        run=setting("MLEDGEOPS_RUN", given),
        token=setting("MLEDGEOPS_TASK_TOKEN", given),
        commands_key=setting("MLEDGEOPS_COMMANDS_KEY", given),
        artifact_root=given.get(ARTIFACT_ROOT_VARIABLE),
        fresh_seconds=fresh_seconds(given),
        # ECS sets the metadata address; the local cloud has none and gives what it would say.
        address=lambda: (
            given.get("MLEDGEOPS_SERVER_ADDRESS")
            or own_address(given["ECS_CONTAINER_METADATA_URI_V4"])
        ),
        task=lambda: (
            given.get("MLEDGEOPS_TASK") or own_task(given["ECS_CONTAINER_METADATA_URI_V4"])
        ),
    )


def make_server(settings: ServerSettings, stopped: threading.Event) -> Server:
    """Wire a server with AWS clients."""
    dynamodb, names = client("dynamodb"), settings.names
    objects = S3Objects(client("s3"), names.bucket)
    runs = RunTable(dynamodb, names.runs_table)
    devices = DeviceTable(dynamodb, names.devices_table)
    runner = CohortRunner(
        IotCommands(client("iot-data")),
        DynamoReplies(dynamodb, names.replies_table),
        objects,
        clock=time.monotonic,
        sleep=time.sleep,
        stopped=stopped.is_set,
        blocked=BlockList(dynamodb, names.devices_table).read,
    )

    def eligible_now(spec: RunSpec) -> set[str]:
        fleet = devices.fleet(spec.fleet)
        return set(eligible(fleet, spec, time.time(), settings.fresh_seconds))

    resources = ServerResources(
        objects=objects,
        runs=runs,
        host=CohortHost(
            runner=runner,
            runs=runs,
            secrets=client("secretsmanager"),
            address=settings.address,
            prefix=names.prefix,
        ),
        store=MlflowStore(mlflow_client, settings.artifact_root),
        signer=kms_signer(client("kms"), settings.commands_key),
        eligible=eligible_now,
        uri=lambda key: f"s3://{names.bucket}/{key}",
        kept=runner.kept,
        task=functools.cache(settings.task),
    )
    return Server(settings.run, resources, stopped)


def main() -> int:
    """Serve one run, as the task's environment says."""
    logs.set_up()  # JSON lines: CloudWatch metric filters read them
    try:
        settings = read_settings(os.environ)
    except SettingMissing as error:
        logger.error("%s", error)
        return 2
    stopped, ended = threading.Event(), threading.Event()
    token = TaskToken(client("stepfunctions"), settings.token)
    server = make_server(settings, stopped)

    def aborted() -> None:
        logs.event(
            logger,
            "server-aborted",
            logging.WARNING,
            run=settings.run,
            reason="the state machine no longer waits for this task",
        )
        stopped.set()
        # The app may be deep in its own code, and nobody waits for it any more.
        threading.Timer(ABORT_SECONDS, os._exit, (1,)).start()

    # A daemon thread: it must not keep a process alive whose run has ended.
    watch = (token, server, aborted, ended)
    threading.Thread(target=keep_alive, args=watch, daemon=True).start()
    return serve_and_answer(settings.run, server, token, ended)


def serve_and_answer(run: str, server: Server, token: TaskToken, ended: threading.Event) -> int:
    """Serve the run and answer the task; returns the exit code.

    ``ended`` stops the heartbeats before the answer: Step Functions refuses those that come after.
    """
    try:
        outcome = server.serve()
    except RunFailed as error:
        ended.set()
        logs.event(logger, "run-failed", logging.ERROR, run=run, code=error.code, reason=str(error))
        if error.code == "fenced":  # whoever took over answers
            return 0
        server.announce_end()
        token.fail("RunFailed", str(error))
        return 1
    except Exception as error:  # ours or AWS's fault: the state machine may try again
        ended.set()
        logger.exception("server-crashed")
        token.fail("ServerCrashed", f"{type(error).__name__}: {error}"[:CAUSE_LIMIT])
        return 1
    ended.set()
    # Before the answer, which lets the Conclude function set the final state: a final state stays.
    server.announce_end()
    return 0 if token.succeed(msgspec.json.encode(outcome).decode()) else 1
