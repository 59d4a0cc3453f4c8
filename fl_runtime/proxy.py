"""Entry point of a proxy task: ``python -m fl_runtime.proxy``. Needs neither torch nor flwr.

Finds the server in the ``runs`` table, serves its cohort until the server says goodbye, and ends
by itself when the run has ended or its server stays away.
"""

from __future__ import annotations

import logging
import sys
import time

from botocore.exceptions import BotoCoreError, ClientError

from edge import logs
from fl_runtime.cohort.mtls import read_identity, secret_name
from fl_runtime.cohort.rpc import attach
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.aws import (
    DynamoReplies,
    IotCommands,
    Names,
    S3Objects,
    SettingMissing,
    client,
    names_from_environment,
    setting,
)
from fl_runtime.run.state import TERMINAL, RunTable

logger = logging.getLogger(__name__)

SERVER_WAIT_SECONDS = 900.0
"""How long a proxy waits for a server that is not there: a restart takes a minute or two on
Fargate.
"""
RETRY_SECONDS = 0.5


def main() -> int:
    """Exit 0 after the run has ended, 1 when the server never came, 2 when the environment lacks
    something.
    """
    logs.set_up()
    try:
        names, run, cohort = (
            names_from_environment(),
            setting("MLEDGEOPS_RUN"),
            setting("MLEDGEOPS_COHORT"),
        )
    except SettingMissing as error:
        logger.error("%s", error)
        return 2
    return serve(names, run, cohort)


def serve(names: Names, run: str, cohort: str) -> int:
    """Serve one cohort until the run ends: attach to its server, and again to the server's
    successor.
    """
    table = RunTable(client("dynamodb"), names.runs_table)
    runner = CohortRunner(
        IotCommands(client("iot-data")),
        DynamoReplies(client("dynamodb"), names.replies_table),
        S3Objects(client("s3"), names.bucket),
        clock=time.monotonic,
        sleep=time.sleep,
    )
    secrets = client("secretsmanager")
    lost_at = time.monotonic()
    while time.monotonic() - lost_at < SERVER_WAIT_SECONDS:
        started = time.monotonic()
        try:
            state = table.get(run)
            if state is None or state.state in (*TERMINAL, "Stopping", "Concluding"):
                return 0
            if state.server and attach(
                state.server,
                cohort,
                read_identity(secrets, secret_name(run, state.epoch)),
                runner,
                lambda: False,
            ):
                return 0
        except (
            ClientError,
            BotoCoreError,
        ) as error:  # AWS's trouble, or a server that is being replaced: the next look will tell
            logs.event(
                logger, "proxy-waits", logging.WARNING, run=run, cohort=cohort, reason=str(error)
            )
        if time.monotonic() - started > RETRY_SECONDS * 4:
            lost_at = time.monotonic()
        time.sleep(RETRY_SECONDS)
    logs.event(
        logger,
        "proxy-gives-up",
        logging.ERROR,
        run=run,
        cohort=cohort,
        reason="the server did not come back",
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
