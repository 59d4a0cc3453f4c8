"""``mledgeops reconcile``: what differs between the registries, the fleet and MLflow, and its
repair.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import msgspec

from pipelines.cli.commands.registry.models import use_store
from pipelines.cli.output import say, show_json, table
from pipelines.desk import clouds
from pipelines.desk.decisions import DEVICE_SECONDS, devices_up, follow
from pipelines.local.cloud import LocalCloud

if TYPE_CHECKING:
    from registry.wiring import Registry


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "reconcile", help="make both registries and the fleet say the same again"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and do nothing"
    )
    clouds.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=reconcile)


def reconcile(arguments: argparse.Namespace) -> int:
    """Exit 0 with nothing to do, or when all of it was done; 1 when some of it could not be done."""
    use_store()
    from registry.reconcile.model import Repair
    from registry.reconcile.plan import mirrors, plan
    from registry.reconcile.repair import repair
    from registry.reconcile.runs import end_open_runs, find_open_runs

    with clouds.use(arguments.cloud) as cloud:
        from fl_runtime.run.aws import client
        from fl_runtime.run.state import RunTable
        from pipelines.desk.registry import open_registry

        registry = open_registry()
        snapshot, actions = registry.reconciliation()
        found_mirrors = mirrors(snapshot)
        repairs, left = (
            plan(snapshot),
            find_open_runs(
                registry.mlflow_client, RunTable(client("dynamodb"), cloud.deployment.runs_table)
            ),
        )
        failed: list[tuple[Repair, str]] = []
        if not arguments.dry_run:
            failed = repair(actions, snapshot, repairs)
            end_open_runs(registry.mlflow_client, left)
            _finish_rollouts(cloud, registry, actions.jobs)
    found = [*repairs, *(run.repair for run in left)]
    if arguments.json:
        show_json(
            {
                "repairs": [msgspec.to_builtins(item) for item in found],
                "done": not arguments.dry_run,
                "failed": [
                    {**msgspec.to_builtins(item), "reason": reason} for item, reason in failed
                ],
                "mirrors": [package.arn for package in found_mirrors],
            }
        )
    elif not found:
        say("both registries, the fleet and MLflow agree: nothing to do")
    else:
        say(
            table(
                ["what", "of", "to", "why"],
                [[item.act, item.subject, item.value, item.why] for item in found],
            )
        )
        say("nothing was changed" if arguments.dry_run else f"{len(found) - len(failed)} repaired")
        for item, reason in failed:
            say(f"not done: {item.act} {item.subject}: {reason}")
        if any(item.act == "register" for item, _ in failed):
            say(
                "a package that no pipeline has made is left alone once it is rejected in SageMaker"
            )
    if found_mirrors and not arguments.json:
        say(
            f"{len(found_mirrors)} packages were made by managed MLflow's own synchronisation; they are left alone: decide on those of the pipeline"
        )
    return 1 if failed else 0


def _finish_rollouts(cloud: clouds.Cloud, registry: Registry, jobs: dict[str, list[str]]) -> None:
    """On the local cloud: run the devices until the rollouts that approvals began, and the updates of
    stale devices, have ended.
    """
    for current in registry.store.fleets():
        late = jobs.get(current.fleet, [])
        if not current.under_way and not late:
            continue
        with devices_up(cloud, current.fleet):
            follow(
                cloud,
                registry,
                registry.store.get(current.fleet, current.under_way) if current.under_way else None,
            )
            deadline = time.monotonic() + DEVICE_SECONDS
            while (
                isinstance(cloud, LocalCloud)
                and any(registry.stale_devices.is_waiting(job) for job in late)
                and time.monotonic() < deadline
            ):
                time.sleep(0.2)
