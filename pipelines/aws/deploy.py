"""Deploys the shipped templates by CloudFormation change sets: to AWS, and, stripped of what it
lacks, to the local cloud.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import MLEdgeOpsError
from pipelines.deployment import Deployment

TEMPLATES = ("base", "data", "sagemaker")
CAPABILITIES = ["CAPABILITY_NAMED_IAM"]
BODY_LIMIT = 51_200
"""Bytes of a template that may travel in the request; a larger one goes by S3."""
NO_CHANGES = ("didn't contain changes", "No updates are to be performed", "No changes")
NEW = ("REVIEW_IN_PROGRESS",)
UNUSABLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
STACK_SECONDS = 3600.0


class DeployError(MLEdgeOpsError):
    """The deployment cannot be made. The text says why, in one sentence."""

    code = "deploy"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One resource that a change set would touch."""

    stack: str
    action: str
    resource: str
    kind: str
    replacement: str = ""


def template(name: str) -> dict[str, Any]:
    """A shipped template, as ``python -m pipelines.aws.app`` wrote it."""
    read: dict[str, Any] = json.loads(
        (Path(__file__).parent / "templates" / f"{name}.json").read_text()
    )
    return read


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """One stack to be: its name, template and parameters (those the template has not are left out)."""

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
    """The three stacks, in order. ``reduce`` takes out what a cloud does not have."""
    values = {"Prefix": d.prefix, **parameters}
    known = {key for name in TEMPLATES for key in template(name)["Parameters"]}
    unknown = sorted(set(values) - known)
    if unknown:
        raise DeployError(
            f"The stacks have no parameter {unknown[0]}; they have {', '.join(sorted(known))}."
        )
    return [
        StackSpec(name=stack, template=reduce(template(name)), parameters=values)
        for name, stack in zip(TEMPLATES, d.stacks, strict=True)
    ]


class Stacks:
    """CloudFormation stacks of one deployment. ``poll_seconds``: how often a change's state is
    asked for.
    """

    def __init__(
        self,
        cloudformation: Any,
        s3: Any,
        bucket: str,
        *,
        poll_seconds: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = cloudformation
        self._s3 = s3
        self._bucket = bucket
        self._poll = poll_seconds
        self._clock = clock
        self._sleep = sleep

    def plan(self, spec: StackSpec) -> list[Change]:
        """What applying would change; nothing is changed. The change set is deleted again, and so
        is a stack it began.
        """
        made = self._change_set(spec)
        try:
            return list(self._changes(spec.name, made)) if made else []
        finally:
            if made:
                self._drop(spec.name, made)

    def apply(self, spec: StackSpec) -> list[Change]:
        """Create or update one stack and wait; returns what was changed. Raises DeployError with
        CloudFormation's first reason.
        """
        made = self._change_set(spec)
        if made is None:
            return []
        changes = list(self._changes(spec.name, made))
        self._api.execute_change_set(ChangeSetName=made, StackName=spec.name)
        status = self._await_stack(spec.name)
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise DeployError(
                f"Stack {spec.name} ended as {status}: {self._first_failure(spec.name)}."
            )
        return changes

    def delete(self, name: str) -> None:
        """Delete a stack and wait; resources marked to be retained stay. Nothing to do for one that
        is not there.
        """
        if self.status(name) is None:
            return
        self._api.delete_stack(StackName=name)
        status = self._await_stack(name)
        if status not in (None, "DELETE_COMPLETE"):
            raise DeployError(f"Stack {name} could not be deleted: {self._first_failure(name)}.")

    def status(self, name: str) -> str | None:
        """A stack's state, None when there is none."""
        try:
            return str(self._api.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        except self._api.exceptions.ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def outputs(self, name: str) -> dict[str, str]:
        """A stack's outputs."""
        described = self._api.describe_stacks(StackName=name)["Stacks"][0]
        return {item["OutputKey"]: item["OutputValue"] for item in described.get("Outputs", [])}

    def same(self, spec: StackSpec) -> bool:
        """Whether a stack stands as specified, by its template and parameters. Cheaper than a
        change set.
        """
        if self.status(spec.name) not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return False
        stack = self._api.describe_stacks(StackName=spec.name)["Stacks"][0]
        body = self._api.get_template(StackName=spec.name)["TemplateBody"]
        there = json.loads(body) if isinstance(body, str) else body
        given = {
            item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])
        }
        return bool(there == spec.template) and all(
            given.get(item["ParameterKey"]) == item["ParameterValue"] for item in spec.arguments()
        )

    def _change_set(self, spec: StackSpec) -> str | None:
        """A change set ready to be executed, or None when nothing would change."""
        status = self.status(spec.name)
        if status in UNUSABLE:
            raise DeployError(
                f"Stack {spec.name} is in {status}: look at its events, delete it, and deploy again."
            )
        body = spec.body
        name = f"mledgeops-{uuid.uuid4().hex}"
        new = status is None or status in NEW
        self._api.create_change_set(
            StackName=spec.name,
            ChangeSetName=name,
            ChangeSetType="CREATE" if new else "UPDATE",
            Parameters=[*spec.arguments(), *([] if new else self._kept(spec))],
            Capabilities=CAPABILITIES,
            **self._template(body),
        )
        described = self._await_change_set(spec.name, name)
        if described["Status"] == "CREATE_COMPLETE":
            return name
        reason = described.get("StatusReason", "")
        self._drop(spec.name, name)
        if any(text in reason for text in NO_CHANGES):
            return None
        raise DeployError(f"CloudFormation refuses the change of {spec.name}: {reason}.")

    def _kept(self, spec: StackSpec) -> list[dict[str, Any]]:
        """What was chosen when the stack was made stays, where nothing else is said: CloudFormation
        would take the defaults.
        """
        there = {
            item["ParameterKey"]
            for item in self._api.describe_stacks(StackName=spec.name)["Stacks"][0].get(
                "Parameters", []
            )
        }
        unsaid = there & set(spec.template.get("Parameters", {})) - set(spec.parameters)
        return [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(unsaid)]

    def _template(self, body: str) -> dict[str, str]:
        if len(body.encode()) <= BODY_LIMIT:
            return {"TemplateBody": body}
        key = f"templates/{hashlib.sha256(body.encode()).hexdigest()}.json"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body.encode())
        return {
            "TemplateURL": f"https://s3.{self._api.meta.region_name}.amazonaws.com/{self._bucket}/{key}"
        }

    def _changes(self, stack: str, change_set: str) -> Iterator[Change]:
        for page in self._api.get_paginator("describe_change_set").paginate(
            StackName=stack, ChangeSetName=change_set
        ):
            for item in page["Changes"]:
                change = item["ResourceChange"]
                yield Change(
                    stack=stack,
                    action=change["Action"],
                    resource=change["LogicalResourceId"],
                    kind=change["ResourceType"],
                    replacement=change.get("Replacement", ""),
                )

    def _drop(self, stack: str, change_set: str) -> None:
        self._api.delete_change_set(StackName=stack, ChangeSetName=change_set)
        if self.status(stack) in NEW:
            self._api.delete_stack(StackName=stack)

    def _await_change_set(self, stack: str, name: str) -> dict[str, Any]:
        described: dict[str, Any] = {}

        def settled() -> bool:
            described.update(self._api.describe_change_set(StackName=stack, ChangeSetName=name))
            return described["Status"] in ("CREATE_COMPLETE", "FAILED")

        self._await(settled, stack)
        return described

    def _await_stack(self, name: str) -> str | None:
        self._await(lambda: not (self.status(name) or "").endswith("IN_PROGRESS"), name)
        return self.status(name)

    def _await(self, settled: Callable[[], bool], stack: str) -> None:
        deadline = self._clock() + STACK_SECONDS
        while not settled():
            if self._clock() > deadline:
                raise DeployError(
                    f"Stack {stack} did not settle within {STACK_SECONDS / 60:.0f} minutes; CloudFormation goes on by itself."
                )
            self._sleep(self._poll)

    def _first_failure(self, stack: str) -> str:
        events: Sequence[dict[str, Any]] = self._api.describe_stack_events(StackName=stack)[
            "StackEvents"
        ]
        failed = [
            e
            for e in events
            if e.get("ResourceStatus", "").endswith("FAILED")
            and "cancelled" not in e.get("ResourceStatusReason", "")
        ]
        if not failed:
            return "no failed resource in its events"
        return f"{failed[-1]['LogicalResourceId']}: {failed[-1].get('ResourceStatusReason', '')}".rstrip(
            "."
        )
