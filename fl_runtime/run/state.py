"""The ``runs`` table: one item for each run, changed only by conditional writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from edge.typed import convert

State = Literal["Starting", "Running", "Concluding", "Succeeded", "Failed", "Stopping", "Stopped"]
TerminalState = Literal["Succeeded", "Failed", "Stopped"]
TERMINAL_STATES: tuple[TerminalState, ...] = get_args(TerminalState)
KEPT_SECONDS = 400 * 86_400
"""Time to live of an item."""
START_SECONDS = 300
"""How long a server may take until its first beat: Fargate makes a network interface and pulls the
image first.
"""
SILENT_SECONDS = 60.0
"""A server that has beaten once and then not for so long is taken to hang."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run's item."""

    run: str
    state: State
    server: str = ""
    """``host:port`` of the server's gRPC endpoint, once it listens."""
    finished_round: int = 0
    checkpoint: str = ""
    """Names of the last two checkpoints, newest first, separated by a comma."""
    epoch: int = 0
    """Counts the servers that have taken the run over. Only the newest may commit rounds."""
    mlflow_run_id: str = ""
    execution_arn: str = ""
    pipeline_execution_arn: str = ""
    reason: str = ""
    created_at: float = 0.0
    task: str = ""
    """ARN of the ECS task that serves the run, from its first beat on."""
    beat_at: float = 0.0
    """Unix time of that task's last beat."""

    def silent_for(self, now: float) -> float:
        """Seconds since the server's last beat; 0 before its first."""
        return now - self.beat_at if self.task else 0.0


class RunTable:
    """Reads and writes the items of runs."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def create(self, state: RunState) -> bool:
        """Create the item. False when it exists: a redelivered message starts nothing twice."""
        item = {key: _value(value) for key, value in msgspec.structs.asdict(state).items()}
        # DynamoDB deletes items some time after this: its time to live.
        item["expires_at"] = {"N": str(int(time.time()) + KEPT_SECONDS)}
        try:
            # attribute_not_exists: two deliveries of one message may arrive at the same time.
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
        return None if item is None else _state(item)

    def under_way(self) -> list[RunState]:
        """The items of runs that have not ended. It reads the whole table."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, ConsistentRead=True
        )
        states = (_state(item) for page in pages for item in page["Items"])
        return [state for state in states if state.state not in TERMINAL_STATES]

    def take_over(self, run: str) -> int:
        """Become the run's server. Returns the new epoch, which fences off all older servers."""
        answer = self._client.update_item(
            TableName=self._table,
            Key={"run": {"S": run}},
            # ADD is atomic: two servers that start at once get different epochs.
            UpdateExpression="ADD epoch :one",
            ConditionExpression="attribute_exists(run)",
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues="UPDATED_NEW",
        )
        return int(answer["Attributes"]["epoch"]["N"])

    def commit_round(self, run: str, epoch: int, number: int, checkpoint: str) -> bool:
        """Record a round as finished. False when another server has taken the run over, or the run
        has ended.
        """
        # epoch = :epoch: a server that Step Functions gave up on may still be running.
        return self._change(
            run,
            {"finished_round": number, "checkpoint": checkpoint},
            TERMINAL_STATES,
            "epoch = :epoch",
            {":epoch": _value(epoch)},
        )

    def update(
        self,
        run: str,
        *,
        unless: tuple[State, ...] = (),
        epoch: int = 0,
        **changes: str | float,
    ) -> bool:
        """Set attributes of a run that has not ended. False when it has ended, or is in one of the
        states ``unless``: a terminal state never changes.

        ``epoch``: that of the server that asks; False when another has taken the run over since.
        """
        condition = "epoch = :epoch" if epoch else "attribute_exists(run)"
        values = {":epoch": _value(epoch)} if epoch else {}
        return self._change(run, changes, (*TERMINAL_STATES, *unless), condition, values)

    def _change(
        self,
        run: str,
        changes: Mapping[str, str | float],
        unless: tuple[State, ...],
        condition: str,
        values: Mapping[str, dict[str, str]],
    ) -> bool:
        """Set attributes if the condition holds and the run is in none of the states ``unless``."""
        states = {f":t{index}": _value(state) for index, state in enumerate(unless)}
        names = {f"#{index}": key for index, key in enumerate(changes)}
        new = {f":{index}": _value(value) for index, value in enumerate(changes.values())}
        sets = ", ".join(f"#{index} = :{index}" for index in range(len(changes)))
        try:
            # NOT IN: the run may be stopped or concluded while its server is still writing.
            self._client.update_item(
                TableName=self._table,
                Key={"run": {"S": run}},
                UpdateExpression=f"SET {sets}",
                ConditionExpression=f"{condition} AND NOT (#state IN ({', '.join(states)}))",
                # "state" is a reserved word:
                # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html
                ExpressionAttributeNames={**names, "#state": "state"},
                ExpressionAttributeValues={**new, **values, **states},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _state(item: Mapping[str, dict[str, str]]) -> RunState:
    # Only known attributes: an older version may read what a newer one wrote.
    fields = {
        key: _plain(value) for key, value in item.items() if key in RunState.__struct_fields__
    }
    return convert(fields, RunState, strict=False)


def _value(value: str | float) -> dict[str, str]:
    # repr is the shortest text that reads back as the same float.
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _plain(value: dict[str, str]) -> str | float:
    return value["S"] if "S" in value else float(value["N"])
