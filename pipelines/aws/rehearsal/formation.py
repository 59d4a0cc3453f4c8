"""CloudFormation's answers in a rehearsal: change sets create resources in the account."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from pipelines.aws.rehearsal.account import Account
from pipelines.aws.rehearsal.values import Resource

_STATES = {False: "CREATE_COMPLETE", True: "ROLLBACK_COMPLETE"}


@dataclass(kw_only=True)
class _Stack:
    status: str = "REVIEW_IN_PROGRESS"
    body: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)


class Formation:
    """Stacks of one account. Each public method answers the call of the same name."""

    def __init__(
        self, account: Account, objects: Mapping[str, bytes], calls: Callable[[], frozenset[str]]
    ) -> None:
        self.calls_before: dict[str, frozenset[str]] = {}
        self.template_bytes: dict[str, int] = {}
        self.failing = ""
        """Stack whose next creation fails at its last resource."""
        self._account = account
        self._objects = objects
        self._calls = calls
        self._stacks: dict[str, _Stack] = {}
        self._sets: dict[str, Mapping[str, Any]] = {}

    def describe_stacks(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The stack's status and parameters."""
        name = asked["StackName"]
        if name not in self._stacks:
            error = {"Code": "ValidationError", "Message": f"Stack with id {name} does not exist"}
            raise ClientError({"Error": error}, "DescribeStacks")
        stack = self._stacks[name]
        parameters = [
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in stack.parameters.items()
        ]
        return {
            "Stacks": [
                {
                    "StackName": name,
                    "StackStatus": stack.status,
                    "CreationTime": 0,
                    "Parameters": parameters,
                }
            ]
        }

    def create_change_set(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Note what is to be created."""
        self._stacks.setdefault(asked["StackName"], _Stack())
        self._sets[asked["ChangeSetName"]] = asked
        return {}

    def describe_change_set(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Ready, and everything is new; or no change, where the stack stands as it is to be."""
        body = self._template(self._sets[asked["ChangeSetName"]])
        if self._stacks[asked["StackName"]].body == body:
            return {"Status": "FAILED", "StatusReason": "The change set didn't contain changes."}
        changes = [
            {"Action": "Add", "LogicalResourceId": name, "ResourceType": resource["Type"]}
            for name, resource in body["Resources"].items()
        ]
        listed = [{"Type": "Resource", "ResourceChange": change} for change in changes]
        return {"Status": "CREATE_COMPLETE", "Changes": listed}

    def delete_change_set(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Forget a change set."""
        self._sets.pop(asked["ChangeSetName"], None)
        return {}

    def execute_change_set(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Create the stack's resources; those of the failing stack are taken away again."""
        name, given = asked["StackName"], self._sets.pop(asked["ChangeSetName"])
        stack = self._stacks[name]
        stack.body = self._template(given)
        stack.parameters = {
            item["ParameterKey"]: item["ParameterValue"] for item in given["Parameters"]
        }
        self.template_bytes[name] = len(json.dumps(stack.body, separators=(",", ":")))
        self.calls_before.setdefault(name, self._calls())
        stack.resources = self._account.create(
            name,
            stack.body,
            stack.parameters,
            takes_over=given.get("ImportExistingResources", False),
        )
        fails = self.failing == name
        if fails:
            self.failing = ""
            self._account.remove(stack.resources, failed=True)
            stack.resources = []
        stack.status = _STATES[fails]
        return {}

    def delete_stack(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Take the stack's resources away, but for what outlives it."""
        stack = self._stacks.pop(asked["StackName"], _Stack())
        self._account.remove(stack.resources, failed=False)
        return {}

    def describe_stack_events(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The failure that the rehearsal made."""
        return {
            "StackEvents": [
                {
                    "StackId": asked["StackName"],
                    "EventId": "1",
                    "StackName": asked["StackName"],
                    "Timestamp": 0,
                    "LogicalResourceId": "Last",
                    "ResourceStatus": "CREATE_FAILED",
                    "ResourceStatusReason": "rehearsed",
                }
            ]
        }

    def _template(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if "TemplateBody" in given:
            body = given["TemplateBody"]
        else:
            body = self._objects[given["TemplateURL"].partition(".amazonaws.com/")[2]].decode()
        read: dict[str, Any] = json.loads(body)
        return read
