"""Change sets: what CloudFormation would change, before it changes it.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.aws.stack_specs import StackSpec
from pipelines.aws.stack_state import NEW, UNUSABLE, Waiter, read_status
from pipelines.errors import DeployError

CAPABILITIES = ["CAPABILITY_NAMED_IAM"]
BODY_LIMIT = 51_200
"""Bytes of a template in a request; a larger one goes by S3:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
"""
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed", "No changes")
"""How CloudFormation says that a change set is empty: it has no code for it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One resource that a change set would touch."""

    stack: str
    action: str
    """``Add``, ``Modify`` or ``Remove``."""
    resource: str
    kind: str
    replacement: str = ""
    """``True``, ``False`` or ``Conditional``, for a change."""


class ChangeSets:
    """Creates, reads, executes and deletes change sets."""

    def __init__(self, cloudformation: Any, s3: Any, bucket: str, waiter: Waiter) -> None:
        self._api = cloudformation
        self._s3 = s3
        self._bucket = bucket
        self._waiter = waiter

    def create(self, spec: StackSpec) -> str | None:
        """A change set ready to be executed, or None when nothing would change.

        Raises DeployError for a stack that cannot be changed, and for what CloudFormation refuses.
        """
        status = read_status(self._api, spec.name)
        if status in UNUSABLE:
            raise DeployError(
                f"Stack {spec.name} is in {status}: look at its events, delete it "
                f"(aws cloudformation delete-stack --stack-name {spec.name}), and deploy again."
            )
        name = f"mledgeops-{uuid.uuid4().hex}"
        new = status is None or status in NEW
        self._api.create_change_set(
            StackName=spec.name,
            ChangeSetName=name,
            ChangeSetType="CREATE" if new else "UPDATE",
            Parameters=[*spec.arguments(), *([] if new else self._kept(spec))],
            Capabilities=CAPABILITIES,
            # What an earlier deployment left with its data is taken over by its name.
            ImportExistingResources=True,
            **self._template(spec.body),
        )
        described = self._settled(spec.name, name)
        if described["Status"] == "CREATE_COMPLETE":
            return name
        reason = described.get("StatusReason", "")
        self.drop(spec.name, name)
        if any(text in reason for text in _NO_CHANGES):
            return None
        raise DeployError(f"CloudFormation refuses the change of {spec.name}: {reason}.")

    def read(self, stack: str, change_set: str) -> Iterator[Change]:
        """What a change set would change."""
        pages = self._api.get_paginator("describe_change_set").paginate(
            StackName=stack, ChangeSetName=change_set
        )
        for change in (item["ResourceChange"] for page in pages for item in page["Changes"]):
            yield Change(
                stack=stack,
                action=change["Action"],
                resource=change["LogicalResourceId"],
                kind=change["ResourceType"],
                replacement=change.get("Replacement", ""),
            )

    def execute(self, stack: str, change_set: str) -> None:
        """Begin the change."""
        self._api.execute_change_set(ChangeSetName=change_set, StackName=stack)

    def drop(self, stack: str, change_set: str) -> None:
        """Delete a change set, and the empty stack that it may have created."""
        self._api.delete_change_set(StackName=stack, ChangeSetName=change_set)
        if read_status(self._api, stack) in NEW:
            self._api.delete_stack(StackName=stack)

    def _kept(self, spec: StackSpec) -> list[dict[str, Any]]:
        """Parameters that are not given keep their values: CloudFormation would take defaults."""
        stack = self._api.describe_stacks(StackName=spec.name)["Stacks"][0]
        there = {item["ParameterKey"] for item in stack.get("Parameters", [])}
        unsaid = there & set(spec.template.get("Parameters", {})) - set(spec.parameters)
        return [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(unsaid)]

    def _template(self, body: str) -> dict[str, str]:
        if len(body.encode()) <= BODY_LIMIT:
            return {"TemplateBody": body}
        key = f"templates/{hashlib.sha256(body.encode()).hexdigest()}.json"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body.encode())
        host = f"s3.{self._api.meta.region_name}.amazonaws.com"
        return {"TemplateURL": f"https://{host}/{self._bucket}/{key}"}

    def _settled(self, stack: str, name: str) -> dict[str, Any]:
        described: dict[str, Any] = {}

        def settled() -> bool:
            described.update(self._api.describe_change_set(StackName=stack, ChangeSetName=name))
            return described["Status"] in ("CREATE_COMPLETE", "FAILED")

        self._waiter.until(settled, stack)
        return described
