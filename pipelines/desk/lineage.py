"""A model's lineage as a tree of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipelines.desk.moments import moment

Node = tuple[str, list["Node"]]
"""A line, and the nodes below it."""


def trace_text(lineage: dict[str, Any], *, every_device: bool) -> str:
    """A lineage as a tree. ``every_device``: list a round's devices instead of counting them."""
    rounds: list[Node] = [_round(entry, every_device) for entry in lineage["rounds"]]
    run = (
        f"run  {lineage['run_id']}  ({lineage['status']}; app {lineage['app']} "
        f"{lineage['app_digest'][:12]}, fleet {lineage['fleet']})"
    )
    below: list[Node] = [
        (f"MLflow run  {lineage['mlflow_run_id']}", []),
        *rounds,
        *(_version(version) for version in lineage["versions"]),
    ]
    machine: Node = (f"state machine execution  {lineage['execution_arn']}", [(run, below)])
    root: Node = (f"pipeline execution  {lineage['pipeline_execution_arn']}", [machine])
    return "\n".join(_tree(root))


def _round(entry: dict[str, Any], every_device: bool) -> Node:
    """A round, with a line for each device or for each phase."""
    name = f"round {entry['round']}"
    if every_device:
        return name, [
            (f"{u['device']}  {u['phase']}  {u['status']} {u['code'] or u['digest'][:12]}", [])
            for u in entry["updates"]
        ]
    phases: dict[str, Counter[str]] = {}
    for update in entry["updates"]:
        outcome = f"{update['status']} {update['code']}".rstrip()
        phases.setdefault(update["phase"], Counter())[outcome] += 1
    return name, [
        (f"{phase}  {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}", [])
        for phase, counts in phases.items()
    ]


def _version(version: dict[str, Any]) -> Node:
    checks = version["checks"] or "none"
    below: list[Node] = [
        (f"weights  {version['model_digest']}", []),
        (f"model package  {version['model_package_arn']}", []),
        (f"model card  {version['model_card']}  (prechecks: {checks})", []),
        *(
            (f"{d['what']}  {moment(d['at'])}  by {d['who']}: {d['why']}", [])
            for d in version["decisions"]
        ),
        *(_rollout(rollout) for rollout in version["rollouts"]),
    ]
    champion = ", champion" if version["champion"] else ""
    return f"version {version['model_version']}  {version['approval']}{champion}", below


def _rollout(rollout: dict[str, Any]) -> Node:
    failures = rollout["failures"]
    below = [
        _wave("canary" if number == 0 else f"wave {number}", wave, failures)
        for number, wave in enumerate(rollout["waves"])
    ]
    if rollout["back"]:
        below.append(_wave("rollback", rollout["back"], failures))
    why = f": {rollout['why']}" if rollout["why"] else ""
    switched = f"{rollout['switched']} devices switched"
    return f"rollout {rollout['rollout']}  {rollout['state']}, {switched}{why}", below


def _wave(name: str, wave: dict[str, Any], failures: dict[str, str]) -> Node:
    devices: list[Node] = [
        (f"{device}  {failures.get(device, '')}".rstrip(), []) for device in wave["devices"]
    ]
    return f"{name}  {', '.join(wave['jobs'])}", devices


def _tree(node: Node, first: str = "", others: str = "") -> Iterator[str]:
    """Lines of a node; ``first`` and ``others`` stand before its first line and the lines below."""
    line, below = node
    yield first + line
    for index, child in enumerate(below):
        last = index == len(below) - 1
        branch, stem = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _tree(child, f"{others}{branch}", f"{others}{stem}")
