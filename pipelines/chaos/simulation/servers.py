"""The state machine of a run and its servers: the product's, each a process of its own.

A server that is silent for as long as Step Functions waits is replaced, whether it is dead or only
paused; one that was paused goes on as if nothing had happened.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.signing import Signer
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.cohort_host import CohortHost
from fl_runtime.server.main import ABORT_SECONDS, serve_and_answer
from fl_runtime.server.server import Server, ServerResources
from fl_runtime.server.task_token import TaskToken, keep_alive
from pipelines.chaos.simulation.cloud import (
    START,
    CloudHistory,
    CloudMessages,
    CloudObjects,
    CloudRuns,
    SimulatedCloud,
)
from pipelines.chaos.simulation.concurrency import Strands
from pipelines.chaos.simulation.scheduler import Process, Scheduler

HEARTBEAT_SECONDS = 30.0
"""As in the state machine (pipelines.aws.state_machine)."""
RETRIES = 6
"""More than there are: a seed may have three faults, and errors of services besides."""
RETRY_SECONDS = 2.0


class _TaskGoneError(ClientError):  # type: ignore[misc]  # botocore is untyped
    """Step Functions no longer waits for a task."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "TaskTimedOut"}}, "send-task")


class VirtualEvent(threading.Event):
    """An event that is waited for in virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def wait(self, timeout: float | None = None) -> bool:
        """As in the base class."""
        if not self.is_set():
            self._scheduler.sleep(timeout or 0.0)
        return self.is_set()


class StateMachine:
    """Starts servers, one after the other, until one answers."""

    exceptions = SimpleNamespace(
        TaskDoesNotExist=_TaskGoneError, TaskTimedOut=_TaskGoneError, InvalidToken=_TaskGoneError
    )

    def __init__(self, cloud: SimulatedCloud, run: str, signer: Signer) -> None:
        self._cloud = cloud
        self._run = run
        self._signer = signer
        self._heard = 0.0
        self.attempts = 0
        self.answer: tuple[str, str] | None = None
        """(Succeeded or the error, output or cause), once a server has answered."""

    def start(self) -> None:
        """Start the next server."""
        cloud, scheduler = self._cloud, self._cloud.scheduler
        faults = cloud.weather.server_faults
        fault = faults[self.attempts] if self.attempts < len(faults) else None
        self.attempts += 1
        token, process = str(self.attempts), Process(f"server#{self.attempts}")
        self._heard = scheduler.now

        def on_step(step: int) -> None:
            if fault is None or step != fault[1]:
                return
            scheduler.note(fault[0], process.name)
            if fault[0] == "kill":
                process.kill()
            else:
                process.paused_until = scheduler.now + fault[2]

        process.on_step = on_step
        scheduler.spawn(process, lambda: self._serve(process, token))
        scheduler.at(HEARTBEAT_SECONDS, lambda: self._watch(token))

    def send_task_heartbeat(self, taskToken: str) -> None:
        """See Step Functions."""
        self._cloud.call("heartbeat", lambda: self._check(taskToken))
        self._heard = self._cloud.scheduler.now

    def send_task_success(self, taskToken: str, output: str) -> None:
        """See Step Functions."""
        self._cloud.call("succeed", lambda: self._end(taskToken, "Succeeded", output))

    def send_task_failure(self, taskToken: str, error: str, cause: str) -> None:
        """See Step Functions."""

        def effect() -> None:
            self._check(taskToken)
            if error == "ServerCrashed":
                self._replace(taskToken)
            else:
                self._end(taskToken, error, cause)

        self._cloud.call("fail", effect)

    def _serve(self, process: Process, name: str) -> None:
        cloud, scheduler = self._cloud, self._cloud.scheduler
        stopped, ended = threading.Event(), VirtualEvent(scheduler)
        server = Server(self._run, self._resources(stopped), stopped)
        token = TaskToken(self, name)

        def aborted() -> None:
            stopped.set()
            scheduler.at(ABORT_SECONDS, process.kill)

        scheduler.spawn(process, lambda: keep_alive(token, server, aborted, ended))
        code = serve_and_answer(self._run, server, token, ended)
        cloud.scheduler.note(process.name, "exit", code)

    def _resources(self, stopped: threading.Event) -> ServerResources:
        cloud, scheduler = self._cloud, self._cloud.scheduler
        strands = Strands(scheduler)
        objects, runs, messages = CloudObjects(cloud), CloudRuns(cloud), CloudMessages(cloud)
        runner = CohortRunner(
            messages,
            messages,
            objects,
            clock=scheduler.time,
            sleep=scheduler.sleep,
            stopped=stopped.is_set,
            now=lambda: START + scheduler.now,
            concurrency=strands,
        )
        table: Any = runs
        return ServerResources(
            objects=objects,
            runs=table,
            host=CohortHost(runner=runner, runs=table, secrets=None, address=str, prefix="sim"),
            store=CloudHistory(cloud),
            signer=self._signer,
            eligible=_nobody,
            uri=lambda key: f"s3://bucket/{key}",
            clock=scheduler.time,
            now=lambda: START + scheduler.now,
            sleep=scheduler.sleep,
            concurrency=strands,
        )

    def _watch(self, token: str) -> None:
        """Replace a server that has been silent for too long."""
        if self.answer is not None or token != str(self.attempts):
            return
        left = self._heard + HEARTBEAT_SECONDS - self._cloud.scheduler.now
        if left > 0:
            self._cloud.scheduler.at(left, lambda: self._watch(token))
        else:
            self._replace(token)

    def _replace(self, token: str) -> None:
        if self.attempts > RETRIES:
            self.answer = ("States.Timeout", "every server was lost")
            return
        # Its token is worth nothing from now on, though the next server starts a little later.
        self._cloud.scheduler.note("replaced", token)
        self._cloud.scheduler.at(RETRY_SECONDS, self.start)
        self._replaced = token

    _replaced = ""

    def _check(self, token: str) -> None:
        if token != str(self.attempts) or token == self._replaced or self.answer is not None:
            raise _TaskGoneError

    def _end(self, token: str, status: str, text: str) -> None:
        self._check(token)
        self.answer = (status, text)


def _nobody(spec: RunSpec) -> set[str]:  # noqa: ARG001  # no run here has requirements
    return set()
