"""One run on a local cloud with its devices, for the command line and for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError

from fl_runtime.run.records import RoundRecord
from pipelines.local.cloud import LocalCloud
from pipelines.local.fleet import FleetClients, check_alive, running_fleet
from pipelines.local.home import LocalCloudError
from pipelines.local.mlflow_store import StoreWatch
from pipelines.run.plan import RunPlan
from pipelines.run.report import RunReport
from pipelines.run.runner import Runner

STOP_SECONDS = 20.0
ENDED = (
    "The local cloud in {} ended while the run was under way: `mledgeops reconcile` records the "
    "run's end, and `mledgeops run --resume RUN` goes on from it."
)


@dataclass(frozen=True)
class Federation:
    """How a run ended."""

    report: RunReport
    interrupted: bool = False
    """The user stopped it by Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Called while a run is under way."""

    on_start: Callable[[str], None] = lambda _: None
    """With the pipeline execution's ARN."""
    on_round: Callable[[RoundRecord], None] = lambda _: None
    """With each finished round."""
    on_stop: Callable[[], None] = lambda: None
    """When the user has interrupted the run, before it is stopped."""
    on_notice: Callable[[str], None] = lambda _: None
    """With what the user should know of while the run goes on, in a sentence."""


def federate(
    cloud: LocalCloud, clients: FleetClients, runner: Runner, plan: RunPlan, progress: Progress
) -> Federation:
    """Bring the devices up, run the pipeline to its end, and stop it in order on Ctrl-C.

    The environment must lead to the cloud (``cloud.reached()``).

    Raises:
        LocalCloudError: The cloud ended while the run was under way.

    """
    with running_fleet(cloud, clients, plan.fleet, plan.devices, plan.app) as devices:
        started = runner.start(plan)
        progress.on_start(started.arn)
        store = StoreWatch(cloud.home.mlflow_file, progress.on_notice)

        def check() -> None:
            check_alive(devices, cloud, plan.fleet)
            store.look()

        try:
            for record in runner.follow(started, check):
                progress.on_round(record)
        except BotoCoreError as error:
            if cloud.home.info() is not None:
                raise
            raise LocalCloudError(ENDED.format(cloud.home.root)) from error
        except LocalCloudError as error:
            runner.stop(started, STOP_SECONDS)
            report = runner.report(started)
            report.status, report.reason = "Failed", str(error)
            return Federation(report)
        except KeyboardInterrupt:
            progress.on_stop()
            runner.stop(started, STOP_SECONDS)
            return Federation(runner.report(started), interrupted=True)
        return Federation(runner.report(started))
