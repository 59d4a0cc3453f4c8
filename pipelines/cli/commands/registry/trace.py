"""``mledgeops trace``: the lineage of a model, from any name in it."""

from __future__ import annotations

import argparse
from typing import Any

from pipelines.cli.commands.registry.models import check_store
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds, wiring
from pipelines.desk.lineage import trace_text
from registry.trace import Tracer


def add_parser(commands: Any) -> None:
    """Declare the command."""
    trace = commands.add_parser("trace")
    trace.add_argument(
        "name",
        help="a run, RUN/ROUND, an ARN, an MLflow run, NAME/VERSION, a digest, FLEET-ROLLOUT, "
        "a job, a device",
    )
    trace.add_argument(
        "--all", action="store_true", help="list every device of every round, not their numbers"
    )
    declare(trace, show_trace)


def show_trace(arguments: argparse.Namespace) -> int:
    """The lineage as a tree; ``--json`` always has all of it."""
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud):
        registry = wiring.registry()
        found = Tracer(
            registry.mlflow_client,
            registry.mlflow,
            registry.store.rollouts(),
            list(registry.audit.entries()),
        ).trace(arguments.name)
    answer(arguments.json, found, trace_text(found, every_device=arguments.all))
    return 0
