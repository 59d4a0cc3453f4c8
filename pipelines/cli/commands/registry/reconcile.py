"""``mledgeops reconcile``: finds and repairs what differs between registries, fleet and MLflow."""

from __future__ import annotations

import argparse
import time
from typing import Any

import msgspec

from pipelines.cli.commands.registry.models import check_store
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.desk import clouds, wiring
from pipelines.desk.decisions import DEVICE_SECONDS, devices_up, follow
from pipelines.local.cloud import LocalCloud
from pipelines.run.executions import Executions
from registry.reconcile.model import Repair
from registry.reconcile.plan import mirrors, plan
from registry.reconcile.repair import repair
from registry.reconcile.runs import end_open_runs, find_open_runs
from registry.wiring import Registry

AGREE = "both registries, the fleet and MLflow agree: nothing to do"


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("reconcile")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and do nothing"
    )
    declare(parser, reconcile)


def reconcile(arguments: argparse.Namespace) -> int:
    """Exit 0 when there is nothing to do or all was done; 1 when a repair could not be done."""
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud) as cloud:
        registry = wiring.registry()
        snapshot, actions = registry.reconciliation()
        copies, repairs = mirrors(snapshot), plan(snapshot)
        clients = wiring.run_clients(cloud.deployment)
        ended = Executions(clients.sagemaker).ended
        left = find_open_runs(registry.mlflow_client, clients.runs, ended)
        failed: list[tuple[Repair, str]] = []
        if not arguments.dry_run:
            failed = repair(actions, snapshot, repairs)
            end_open_runs(registry.mlflow_client, clients.runs, left)
            _finish_rollouts(cloud, registry, actions.jobs)
    found = [*repairs, *(run.repair for run in left)]
    document = {
        "repairs": [msgspec.to_builtins(item) for item in found],
        "done": not arguments.dry_run,
        "failed": [{**msgspec.to_builtins(item), "reason": reason} for item, reason in failed],
        "mirrors": [package.arn for package in copies],
    }
    text = repairs_text(found, failed, done=not arguments.dry_run)
    answer(arguments.json, document, f"{text}{_mirrors_text(len(copies))}")
    return 1 if failed else 0


def repairs_text(found: list[Repair], failed: list[tuple[Repair, str]], *, done: bool) -> str:
    """What differs, and what became of it."""
    if not found:
        return AGREE
    rows = [[item.act, item.subject, item.value, item.why] for item in found]
    lines = [table(["what", "of", "to", "why"], rows)]
    lines.append(f"{len(found) - len(failed)} repaired" if done else "nothing was changed")
    lines += [f"not done: {item.act} {item.subject}: {reason}" for item, reason in failed]
    if any(item.act == "register" for item, _ in failed):
        lines.append("reject a package that no pipeline made in SageMaker, to have it left alone")
    return "\n".join(lines)


def _mirrors_text(count: int) -> str:
    if not count:
        return ""
    return (
        f"\n{count} packages were made by managed MLflow's own synchronisation; "
        "they are left alone: decide on the pipeline's packages"
    )


def _finish_rollouts(cloud: clouds.Cloud, registry: Registry, jobs: dict[str, list[str]]) -> None:
    """On the local cloud: run each fleet until its rollout and its ``jobs`` have ended.

    ``jobs``: for each fleet those that bring stale devices up to date.
    """
    clients = wiring.fleet_clients()
    for current in registry.store.fleets():
        fleet, pending = current.fleet, jobs.get(current.fleet, [])
        if not current.under_way and not pending:
            continue
        with devices_up(cloud, clients, fleet):
            under_way = current.under_way
            follow(cloud, registry, registry.store.get(fleet, under_way) if under_way else None)
            _await_jobs(cloud, registry, pending)


def _await_jobs(cloud: clouds.Cloud, registry: Registry, jobs: list[str]) -> None:
    """Wait until devices have answered jobs, where the devices are local."""
    deadline = time.monotonic() + DEVICE_SECONDS
    while (
        isinstance(cloud, LocalCloud)
        and any(registry.stale_devices.is_waiting(job) for job in jobs)
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
