"""Writes the lists of docs/compatibility.md: what the suite covers, and how each feature runs."""

from __future__ import annotations

from itertools import groupby

from support.paths import ROOT

from compatibility.catalogue import CATALOGUE, RELATIVE, App
from fl_runtime.server.apps.features import FEATURES

FILE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "and a test holds it current. -->\n", "<!-- end -->"
"""The lists lie between these."""


def render(text: str) -> str:
    """The document with its lists as they must be."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + _lists() + END + rest.partition(END)[2]


def write() -> None:
    """Write the document."""
    FILE.write_text(render(FILE.read_text()))


def _lists() -> str:
    parts = []
    for group, apps in groupby(CATALOGUE, key=lambda app: app.group):
        rows = [_row(app) for app in apps]
        parts.append(_table(group, ("app", "what it shows", "ends with", "as Flower"), rows))
    features = [(feature.name, feature.runs) for feature in FEATURES.values()]
    parts.append(_table("How each feature runs", ("of Flower", "here"), features))
    return "".join(parts)


def _table(heading: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    ruler = ("---",) * len(columns)
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    return "\n".join([f"\n## {heading}\n", lines[0], f"|{'|'.join(ruler)}|", *lines[1:], "\n"])


def _row(app: App) -> tuple[str, ...]:
    ends = "a model" if app.model else "an analysis"
    equal = f"not yet (issue 13, {app.missing})" if app.missing else "equal"
    if not app.missing and app.tolerance > RELATIVE:
        equal = f"equal to {app.tolerance:g}: it rounds at random"
    return f"`{app.name}`", app.shows, ends, equal
