"""``mledgeops audit``: who decided what, and whether the trail is intact."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from pipelines.cli.options import declare
from pipelines.cli.output import answer, moment, table
from pipelines.desk import clouds, wiring
from registry.audit import AuditEntry


def add_parser(commands: Any) -> None:
    """Declare the command."""
    audit = commands.add_parser("audit")
    declare(audit, show_audit)


def show_audit(arguments: argparse.Namespace) -> int:
    """The trail from its first entry; exit 1 when it was tampered with."""
    entries, wrong = _trail(arguments.cloud)
    rows = [[e.number, moment(e.at), e.who, e.what, e.subject, e.why] for e in entries]
    trail = table(["entry", "when", "who", "what", "about", "why"], rows)
    text = trail if rows else "nothing was decided yet"
    verdict = "\n".join(wrong) if wrong else "the trail is intact"
    built = [msgspec.to_builtins(entry) for entry in entries]
    answer(arguments.json, {"entries": built, "violations": wrong}, f"{text}\n{verdict}")
    return 1 if wrong else 0


def _trail(cloud: str) -> tuple[list[AuditEntry], list[str]]:
    """The entries, and what is wrong with them. Both are empty in a new home."""
    with clouds.use_store(cloud) as exists:
        if not exists:
            return [], []
    with clouds.use(cloud):
        registry = wiring.registry()
        wrong = registry.audit.verify(registry.mlflow.audit_heads())
        return list(registry.audit.entries()), wrong
