"""The ``runs`` table: one item a run, changed only by conditional writes."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

State = Literal["Starting", "Running", "Concluding", "Succeeded", "Failed", "Stopping", "Stopped"]
TERMINAL_STATES = ("Succeeded", "Failed", "Stopped")
KEPT_SECONDS = 400 * 86_400
"""How long a run's item is kept (TTL)."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run."""

    run: str
    state: State
    server: str = ""
    """``host:port`` of the server's gRPC, once it listens."""
    finished_round: int = 0
    checkpoint: str = ""
    """Names of the last two checkpoints, newest first, joined by a comma."""
    epoch: int = 0
    """Counts the servers that took the run: only the newest may write rounds."""
    mlflow_run_id: str = ""
    execution_arn: str = ""
    pipeline_execution_arn: str = ""
    reason: str = ""
    created_at: float = 0.0


class RunTable:
    """Reads and writes run items."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def create(self, state: RunState) -> bool:
        """False when the run is there already: a redelivered message starts nothing twice."""
        item = {key: _value(value) for key, value in msgspec.structs.asdict(state).items()}
        item["expires_at"] = {"N": str(int(time.time()) + KEPT_SECONDS)}
        try:
            # attribute_not_exists closes the race of two deliveries of the same message.
            self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(run)"
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def get(self, run: str) -> RunState | None:
        """The run's item, or None."""
        item = self._client.get_item(
            TableName=self._table, Key={"run": {"S": run}}, ConsistentRead=True
        ).get("Item")
        if item is None:
            return None
        fields = {
            key: _plain(value) for key, value in item.items() if key in RunState.__struct_fields__
        }
        return msgspec.convert(fields, RunState, strict=False)

    def take(self, run: str) -> int:
        """Become the run's server: returns the new epoch, from which on older servers are fenced
        off.
        """
        answer = self._client.update_item(
            TableName=self._table,
            Key={"run": {"S": run}},
            UpdateExpression="ADD epoch :one",
            ConditionExpression="attribute_exists(run)",
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues="UPDATED_NEW",
        )
        return int(answer["Attributes"]["epoch"]["N"])

    def commit_round(self, run: str, epoch: int, number: int, checkpoint: str) -> bool:
        """Make a round count; False for a server that another has replaced, or a run that has
        ended.
        """
        names = {f":t{index}": {"S": state} for index, state in enumerate(TERMINAL_STATES)}
        try:
            # epoch = :epoch closes the race of two servers, after a heartbeat was late, say.
            self._client.update_item(
                TableName=self._table,
                Key={"run": {"S": run}},
                UpdateExpression="SET finished_round = :round, checkpoint = :checkpoint",
                ConditionExpression=f"epoch = :epoch AND NOT (#state IN ({', '.join(names)}))",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={
                    ":round": _value(number),
                    ":checkpoint": _value(checkpoint),
                    ":epoch": _value(epoch),
                    **names,
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def update(self, run: str, *, unless: tuple[State, ...] = (), **changes: str | float) -> bool:
        """Change a run that has not ended, nor is in one of the states ``unless``; False when it is
        (an ended run stays as it ended).
        """
        names = {f"#{index}": key for index, key in enumerate(changes)}
        values = {f":{index}": _value(value) for index, value in enumerate(changes.values())}
        terminal = {
            f":t{index}": {"S": state} for index, state in enumerate((*TERMINAL_STATES, *unless))
        }
        try:
            # NOT IN (terminal) closes the race of a late server against conclude.
            self._client.update_item(
                TableName=self._table,
                Key={"run": {"S": run}},
                UpdateExpression="SET "
                + ", ".join(f"#{index} = :{index}" for index in range(len(changes))),
                ConditionExpression=f"attribute_exists(run) AND NOT (#state IN ({', '.join(terminal)}))",
                ExpressionAttributeNames={**names, "#state": "state"},
                ExpressionAttributeValues={**values, **terminal},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _value(value: str | float) -> dict[str, str]:
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _plain(value: dict[str, str]) -> str | float:
    return value["S"] if "S" in value else float(value["N"])
