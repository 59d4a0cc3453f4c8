"""The shipped CloudFormation templates, for the tests that look into them."""

from __future__ import annotations

from typing import Any

from pipelines.aws import stack_specs


def resources(kind: str) -> list[dict[str, Any]]:
    """The shipped templates' resources of one type."""
    return [
        r
        for name in stack_specs.TEMPLATES
        for r in stack_specs.template(name)["Resources"].values()
        if r["Type"] == kind
    ]
