"""``mledgeops policy``: the rules of prechecks and rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from pipelines.cli.commands.registry.models import check_store
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds, wiring
from registry.policy import read_policy


def add_parser(commands: Any) -> None:
    """Declare the command."""
    policy = commands.add_parser("policy")
    policy.add_argument(
        "file", type=Path, nargs="?", help="a TOML file with the tables [gates] and [rollout]"
    )
    declare(policy, show_policy)


def show_policy(arguments: argparse.Namespace) -> int:
    """Put the file's policy in force, if there is a file, and show the policy in force."""
    policy = read_policy(arguments.file) if arguments.file is not None else None
    check_store(arguments.cloud)
    with clouds.use(arguments.cloud):
        registry = wiring.registry()
        if policy is not None:
            registry.set_policy(policy, registry.caller())
        current = msgspec.to_builtins(registry.policy())
    answer(arguments.json, current, policy_text(current))
    return 0


def policy_text(policy: dict[str, dict[str, Any]]) -> str:
    """A policy as TOML."""
    lines = []
    for section, values in policy.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            lines.append(f"{key} = {list(value) if isinstance(value, tuple) else value}")
    return "\n".join(lines)
