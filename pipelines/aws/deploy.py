"""Deploys the shipped templates: to AWS and, without what it lacks, to the local cloud."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.aws.change_sets import Change, ChangeSets
from pipelines.aws.stack_specs import StackSpec
from pipelines.aws.stack_state import COMPLETE, NEW, Waiter, first_failure, read_status
from pipelines.errors import DeployError, aws_refusal


@contextlib.contextmanager
def going_on(stack: str) -> Iterator[None]:
    """Say of a session that ends while a stack changes what becomes of the stack."""
    try:
        yield
    except Exception as error:
        if (refusal := aws_refusal(error)) is None:
            raise
        raise DeployError(
            f"Stack {stack} may be under way still, and CloudFormation goes on by itself. {refusal}"
        ) from error


class Stacks:
    """CloudFormation stacks of one deployment. ``bucket``: where large templates are uploaded."""

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
        self._waiter = Waiter(poll_seconds=poll_seconds, clock=clock, sleep=sleep)
        self._change_sets = ChangeSets(cloudformation, s3, bucket, self._waiter)

    def plan(self, spec: StackSpec) -> list[Change]:
        """What applying would change. Nothing is changed: the change set is deleted again."""
        made = self._change_sets.create(spec)
        if made is None:
            return []
        try:
            return list(self._change_sets.read(spec.name, made))
        finally:
            self._change_sets.drop(spec.name, made)

    def apply(self, spec: StackSpec) -> list[Change]:
        """Create or update one stack and wait; returns what was changed. Raises DeployError with
        CloudFormation's first reason.
        """
        with going_on(spec.name):
            return self._apply(spec)

    def _apply(self, spec: StackSpec) -> list[Change]:
        made = self._change_sets.create(spec)
        if made is None:
            return []
        changes = list(self._change_sets.read(spec.name, made))
        self._change_sets.execute(spec.name, made)
        status = self._settled(spec.name)
        if status not in COMPLETE:
            reason = first_failure(self._api, spec.name)
            raise DeployError(f"Stack {spec.name} ended as {status}: {reason}.")
        return changes

    def delete(self, name: str) -> None:
        """Delete a stack and wait (idempotent). Resources that are to be retained stay."""
        if self.status(name) is None:
            return
        self._api.delete_stack(StackName=name)
        if self._settled(name) not in (None, "DELETE_COMPLETE"):
            reason = first_failure(self._api, name)
            raise DeployError(f"Stack {name} could not be deleted: {reason}.")

    def status(self, name: str) -> str | None:
        """A stack's status, None when there is none."""
        return read_status(self._api, name)

    def parameters(self, name: str) -> dict[str, str]:
        """The values that a stack was made with; none where there is no stack."""
        if self.is_new(name):
            return {}
        (stack,) = self._api.describe_stacks(StackName=name)["Stacks"]
        return {
            item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])
        }

    def is_new(self, name: str) -> bool:
        """Whether a stack has no resources yet."""
        return self.status(name) in (None, *NEW)

    def same(self, spec: StackSpec) -> bool:
        """Whether a stack stands as specified, by template and parameters. Cheaper than a change
        set.
        """
        if self.status(spec.name) not in COMPLETE:
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

    def _settled(self, name: str) -> str | None:
        """The stack's status once nothing is in progress."""
        self._waiter.until(lambda: not (self.status(name) or "").endswith("IN_PROGRESS"), name)
        return self.status(name)
