"""A new account for the rehearsal: what a deployment leaves in it, and what AWS makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.aws.literal_names import NAMES
from pipelines.aws.rehearsal.values import Place, Resource, Values


@dataclass(kw_only=True)
class Account:
    """Its resources and the names that are in use."""

    place: Place
    resources: list[Resource] = field(default_factory=list)
    """All that were ever created, in order."""
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    """Stack of what has a name, by type and name; empty for what outlived its stack."""
    aliases: dict[str, str] = field(default_factory=dict)
    """ARN of a KMS key by its alias. Aliases outlive their stack where they are retained."""
    exports: dict[str, Any] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    lost_keys: list[tuple[str, str]] = field(default_factory=list)
    trusted: dict[str, str] = field(default_factory=dict)
    """Keys that enrolled devices know, by alias."""
    creations: int = 0
    """How many stacks were created: the key of a later one is another key."""

    def enrol(self) -> None:
        """A device comes to know the keys."""
        self.trusted = dict(self.aliases)

    def create(
        self,
        stack: str,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        *,
        takes_over: bool,
    ) -> list[Resource]:
        """Create a stack's resources. ``takes_over``: ``ImportExistingResources``."""
        self.creations += 1
        values = Values(
            stack, template, parameters, self.place, self.exports, seed=str(self.creations)
        )
        created = list(values.resources())
        for resource in created:
            self._claim(resource, takes_over)
        self.exports.update(values.exported())
        self.resources += created
        return created

    def remove(self, created: list[Resource], *, failed: bool) -> None:
        """Take away what may go: after a failed creation, or when a stack is deleted.

        https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html
        """
        for resource in created:
            policy = resource.template.get("DeletionPolicy", "Delete")
            stays = policy == "Retain" or (policy == "RetainExceptOnCreate" and not failed)
            key = (resource.type, resource.name)
            if stays and resource.name:
                self.names[key] = ""
            else:
                self.names.pop(key, None)
                if resource.type == "AWS::KMS::Alias":
                    self.aliases.pop(resource.name, None)

    def _claim(self, resource: Resource, takes_over: bool) -> None:
        key = (resource.type, resource.name)
        if not resource.name:
            return
        if key in self.names:
            # CloudFormation takes over what is retained and has its name as it is in the template.
            named = resource.template["Properties"].get(NAMES.get(resource.type, ""))
            retained = resource.template.get("DeletionPolicy", "").startswith("Retain")
            if self.names[key] or not (takes_over and retained and isinstance(named, str)):
                reason = f"{resource.name} exists already, and the next deployment fails"
                self.taken.append((resource.where, reason))
        self.names[key] = resource.stack
        if resource.type == "AWS::KMS::Alias":
            self._lead(resource)

    def _lead(self, alias: Resource) -> None:
        target = str(alias.properties["TargetKeyId"])
        if self.trusted.get(alias.name, target) != target:
            self.lost_keys.append(
                (alias.where, f"{alias.name} would lead to a new key, which no device trusts")
            )
        self.aliases[alias.name] = target
