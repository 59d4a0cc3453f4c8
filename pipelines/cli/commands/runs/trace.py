"""``mledgeops trace``: how everything hangs together, from any name in it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from pipelines.cli.commands.registry.models import use_store
from pipelines.cli.output import moment, say, show_json
from pipelines.desk import clouds

Node = tuple[str, list["Node"]]
"""A line, and what hangs below it."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    trace = commands.add_parser("trace", help="walk the chain of a model from any name in it")
    trace.add_argument(
        "name",
        help="a run, RUN/ROUND, an ARN, an MLflow run, NAME/VERSION, a digest, FLEET-ROLLOUT, a job, a device",
    )
    clouds.add_option(trace)
    trace.add_argument("--json", action="store_true", help="print one JSON document")
    trace.set_defaults(function=show_trace)


def show_trace(arguments: argparse.Namespace) -> int:
    """The chain, as a tree."""
    use_store()
    from registry.trace import Tracer

    with clouds.use(arguments.cloud):
        from pipelines.desk.registry import open_registry

        registry = open_registry()
        chain = Tracer(
            registry.mlflow_client,
            registry.mlflow,
            registry.store.rollouts(),
            list(registry.audit.entries()),
        ).trace(arguments.name)
    show_json(chain) if arguments.json else say("\n".join(_tree(_chain_of(chain))))
    return 0


def _chain_of(chain: dict[str, Any]) -> Node:
    rounds: list[Node] = [
        (
            f"round {entry['round']}",
            [
                (f"{u['device']}  {u['phase']}  {u['status']} {u['code'] or u['digest'][:12]}", [])
                for u in entry["updates"]
            ],
        )
        for entry in chain["rounds"]
    ]
    run = f"run  {chain['run_id']}  ({chain['status']}; app {chain['app']} {chain['app_digest'][:12]}, fleet {chain['fleet']})"
    below: list[Node] = [
        (f"MLflow run  {chain['mlflow_run_id']}", []),
        *rounds,
        *(_version_of(version) for version in chain["versions"]),
    ]
    machine: Node = (f"state machine execution  {chain['execution_arn']}", [(run, below)])
    return f"pipeline execution  {chain['pipeline_execution_arn']}", [machine]


def _version_of(version: dict[str, Any]) -> Node:
    below: list[Node] = [
        (f"weights  {version['model_digest']}", []),
        (f"model package  {version['model_package_arn']}", []),
        (f"model card  {version['model_card']}  (pre-checks: {version['checks'] or 'none'})", []),
        *(
            (f"{d['what']}  {moment(d['at'])}  by {d['who']}: {d['why']}", [])
            for d in version["decisions"]
        ),
        *(_rollout_of(rollout) for rollout in version["rollouts"]),
    ]
    return (
        f"version {version['model_version']}  {version['approval']}{', champion' if version['champion'] else ''}",
        below,
    )


def _rollout_of(rollout: dict[str, Any]) -> Node:
    def wave(name: str, part: dict[str, Any]) -> Node:
        told = [
            (f"{d}  {rollout['failures'].get(d, '')}".rstrip(), list[Node]())
            for d in part["devices"]
        ]
        return f"{name}  {', '.join(part['jobs'])}", told

    waves = [
        wave("canary" if number == 0 else f"wave {number}", part)
        for number, part in enumerate(rollout["waves"])
    ]
    back = [wave("back", rollout["back"])] if rollout["back"] else []
    why = f": {rollout['why']}" if rollout["why"] else ""
    return (
        f"rollout {rollout['rollout']}  {rollout['state']}, {rollout['switched']} devices switched{why}",
        [*waves, *back],
    )


def _tree(node: Node, first: str = "", others: str = "") -> Iterator[str]:
    line, below = node
    yield first + line
    for index, child in enumerate(below):
        last = index == len(below) - 1
        yield from _tree(
            child, f"{others}{'└─ ' if last else '├─ '}", f"{others}{'   ' if last else '│  '}"
        )
