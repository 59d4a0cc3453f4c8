"""The three stacks as they are to be: the shipped templates with their parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.aws.literal_names import with_literal_names
from pipelines.deployment import Deployment
from pipelines.errors import DeployError

TEMPLATES = ("base", "data", "sagemaker")
"""In the order in which their stacks are created."""


def template(name: str) -> dict[str, Any]:
    """A shipped template, as ``python -m pipelines.aws.app`` wrote it."""
    read: dict[str, Any] = json.loads(
        (Path(__file__).parent / "templates" / f"{name}.json").read_text()
    )
    return read


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """One stack: its name, template and parameters. Parameters that the template lacks are left
    out.
    """

    name: str
    template: Mapping[str, Any]
    parameters: Mapping[str, str]

    @property
    def body(self) -> str:
        """The template without white space, the same for the same content."""
        return json.dumps(self.template, separators=(",", ":"), sort_keys=True)

    def arguments(self) -> list[dict[str, str]]:
        """Parameters as CloudFormation takes them."""
        return [
            {"ParameterKey": k, "ParameterValue": v}
            for k, v in sorted(self.parameters.items())
            if k in self.template.get("Parameters", {})
        ]


def specs(
    d: Deployment,
    parameters: Mapping[str, str],
    *,
    reduce: Callable[[dict[str, Any]], dict[str, Any]] = lambda whole: whole,
) -> list[StackSpec]:
    """The three stacks, in order. ``reduce`` removes what a cloud does not have.

    Raises DeployError for a parameter that no template has.
    """
    values = {"Prefix": d.prefix, **parameters}
    known = {key for name in TEMPLATES for key in template(name)["Parameters"]}
    unknown = sorted(set(values) - known)
    if unknown:
        raise DeployError(
            f"The stacks have no parameter {unknown[0]}; they have {', '.join(sorted(known))}."
        )
    names = {**values, "AWS::AccountId": d.account, "AWS::Region": d.region}
    return [
        StackSpec(
            name=stack,
            template=reduce(with_literal_names(template(name), names)),
            parameters=values,
        )
        for name, stack in zip(TEMPLATES, d.stacks, strict=True)
    ]
