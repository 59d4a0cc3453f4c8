"""One run on a local cloud, with its devices: what the command line and notebooks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fl_runtime.run.aws import client
from fl_runtime.run.records import RoundRecord
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import check_alive, running_fleet
from pipelines.local.home import LocalCloudError
from pipelines.run.clients import run_clients
from pipelines.run.plan import RunPlan
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Federation:
    """How a run ended, and whether the user interrupted it."""

    report: RunReport
    interrupted: bool = False


def federate(
    cloud: LocalCloud,
    plan: RunPlan,
    on_start: Callable[[str], None],
    on_round: Callable[[RoundRecord], None],
    on_stop: Callable[[], None],
) -> Federation:
    """Bring the devices up, run the pipeline, call back for its ARN and each round; stop it in
    order when interrupted.

    The environment must lead to the cloud (``cloud.reached()``).
    """
    with running_fleet(cloud, plan.fleet, plan.devices, plan.app, client("iot")) as devices:
        runner = Runner(cloud.deployment, run_clients(cloud.deployment))
        started = runner.start(plan)
        on_start(started.arn)
        try:
            for record in runner.follow(started, lambda: check_alive(devices, cloud, plan.fleet)):
                on_round(record)
        except LocalCloudError as error:
            runner.stop(started, STOP_SECONDS)
            report = runner.report(started)
            report.status, report.reason = "Failed", str(error)
            return Federation(report)
        except KeyboardInterrupt:
            on_stop()
            runner.stop(started, STOP_SECONDS)
            return Federation(runner.report(started), interrupted=True)
        return Federation(runner.report(started))
