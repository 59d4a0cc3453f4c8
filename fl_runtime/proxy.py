"""Entry point of a proxy task: ``python -m fl_runtime.proxy``. Needs neither torch nor flwr.

Finds the server in the ``runs`` table, serves its cohort until the server says goodbye, and ends
by itself when the run has ended or its server does not come back.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from edge import logs
from fl_runtime.cohort.attach import attach
from fl_runtime.cohort.mtls import read_identity, secret_name
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.aws import (
    DynamoReplies,
    IotCommands,
    ResourceNames,
    S3Objects,
    client,
    names_from_environment,
    setting,
)
from fl_runtime.run.blocking import BlockList
from fl_runtime.run.errors import SettingMissing
from fl_runtime.run.ports import Clock, Sleep
from fl_runtime.run.state import TERMINAL_STATES, RunState, RunTable

logger = logging.getLogger(__name__)

SERVER_WAIT_SECONDS = 900.0
"""How long a proxy waits for a server: a restart takes a minute or two on Fargate."""
RETRY_SECONDS = 0.5
ATTACHED_SECONDS = 2.0
"""An attempt that took longer than this had reached a server: the wait starts anew."""


def main() -> int:
    """Exit 0 when the run has ended, 1 when the server did not come back, 2 when the environment
    lacks a setting.
    """
    logs.set_up()
    try:
        names = names_from_environment()
        run, cohort = setting("MLEDGEOPS_RUN"), setting("MLEDGEOPS_COHORT")
    except SettingMissing as error:
        logger.error("%s", error)
        return error.exit_code
    table = RunTable(client("dynamodb"), names.runs_table)
    return serve(
        run,
        cohort,
        state=lambda: table.get(run),
        connect=_connector(names, run, cohort),
        clock=time.monotonic,
        sleep=time.sleep,
    )


def _connector(names: ResourceNames, run: str, cohort: str) -> Callable[[RunState], bool]:
    """Attaches the cohort to the run's server; True after its goodbye."""
    dynamodb = client("dynamodb")
    runner = CohortRunner(
        IotCommands(client("iot-data")),
        DynamoReplies(dynamodb, names.replies_table),
        S3Objects(client("s3"), names.bucket),
        clock=time.monotonic,
        sleep=time.sleep,
        blocked=BlockList(dynamodb, names.devices_table).read,
    )
    secrets = client("secretsmanager")

    def connect(state: RunState) -> bool:
        # Each server of a run has certificates of its own, one for each cohort.
        identity = read_identity(secrets, secret_name(names.prefix, run, state.epoch, cohort))
        return attach(state.server, cohort, identity, runner)

    return connect


def serve(
    run: str,
    cohort: str,
    *,
    state: Callable[[], RunState | None],
    connect: Callable[[RunState], bool],
    clock: Clock,
    sleep: Sleep,
) -> int:
    """Serve one cohort until the run ends, across restarts of its server. Returns the exit code.

    ``connect`` returns True when the server said goodbye, False when the connection was lost.
    """
    logs.event(logger, "proxy-started", run=run, cohort=cohort)
    lost_at = clock()
    while clock() - lost_at < SERVER_WAIT_SECONDS:
        started = clock()
        try:
            found = state()
            if found is None or found.state in (*TERMINAL_STATES, "Stopping", "Concluding"):
                return 0
            if found.server and connect(found):
                return 0
        except (ClientError, BotoCoreError) as error:
            # AWS is unavailable, or a new server has replaced the certificates: try again.
            logs.event(
                logger, "proxy-waits", logging.WARNING, run=run, cohort=cohort, reason=str(error)
            )
        if clock() - started > ATTACHED_SECONDS:
            lost_at = clock()
        sleep(RETRY_SECONDS)
    reason = "the server did not come back"
    logs.event(logger, "proxy-gives-up", logging.ERROR, run=run, cohort=cohort, reason=reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
