"""The rollout's ports on AWS: a DynamoDB table, IoT Jobs, the devices table. Clients are made by
who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from edge.protocol.signed import SignedManifest
from fl_runtime.run.devices import DeviceStatus
from registry.rollout.conductor import Beat, Current, Rollout

CURRENT = "current"
URL_SECONDS = 3600
"""How long an address in a job's document is good, from the moment the device asks for the document
(AWS's limit).
"""


class DynamoStore:
    """:class:`~registry.rollout.conductor.Store` in the ``rollouts`` table."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def current(self, fleet: str) -> Current:
        """A fresh item for a fleet that runs nothing."""
        body = self._body(fleet, CURRENT)
        return msgspec.json.decode(body, type=Current) if body else Current(fleet=fleet)

    def replace(self, before: Current, after: Current) -> bool:
        """The whole item is compared: two that change it at once cannot both succeed."""
        condition, values = "attribute_not_exists(fleet)", {}
        if self._body(before.fleet, CURRENT):
            condition, values = (
                "body = :before",
                {":before": {"S": msgspec.json.encode(before).decode()}},
            )
        return self._write(before.fleet, CURRENT, after, condition, values)

    def get(self, fleet: str, number: int) -> Rollout | None:
        """A rollout."""
        body = self._body(fleet, _key(number))
        return msgspec.json.decode(body, type=Rollout) if body else None

    def create(self, rollout: Rollout) -> bool:
        """False when the number is taken."""
        return self._write(
            rollout.fleet, _key(rollout.number), rollout, "attribute_not_exists(fleet)", {}
        )

    def put(self, rollout: Rollout) -> None:
        """Write a rollout."""
        self._write(rollout.fleet, _key(rollout.number), rollout, "", {})

    def rollouts(self, fleet: str = "") -> list[Rollout]:
        """All rollouts of a fleet, or of all fleets, newest first."""
        pages = self._client.get_paginator("scan").paginate(TableName=self._table)
        items = [
            item
            for page in pages
            for item in page["Items"]
            if item["rollout"]["S"] != CURRENT and fleet in ("", item["fleet"]["S"])
        ]
        return sorted(
            (msgspec.json.decode(item["body"]["S"], type=Rollout) for item in items),
            key=lambda r: r.started_at,
            reverse=True,
        )

    def fleets(self) -> list[Current]:
        """What each fleet runs."""
        pages = self._client.get_paginator("scan").paginate(TableName=self._table)
        found = [
            item["body"]["S"]
            for page in pages
            for item in page["Items"]
            if item["rollout"]["S"] == CURRENT
        ]
        return [msgspec.json.decode(body, type=Current) for body in found]

    def _body(self, fleet: str, rollout: str) -> str:
        key = {"fleet": {"S": fleet}, "rollout": {"S": rollout}}
        item = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True).get(
            "Item"
        )
        return str(item["body"]["S"]) if item else ""

    def _write(
        self,
        fleet: str,
        rollout: str,
        value: msgspec.Struct,
        condition: str,
        values: dict[str, Any],
    ) -> bool:
        item = {
            "fleet": {"S": fleet},
            "rollout": {"S": rollout},
            "body": {"S": msgspec.json.encode(value).decode()},
        }
        extra = {
            **({"ConditionExpression": condition} if condition else {}),
            **({"ExpressionAttributeValues": values} if values else {}),
        }
        try:
            self._client.put_item(TableName=self._table, Item=item, **extra)
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


class IotJobs:
    """:class:`~registry.rollout.conductor.Jobs` by AWS IoT."""

    def __init__(self, iot: Any, region: str, account: str, urls_role: str) -> None:
        self._client = iot
        self._things = f"arn:aws:iot:{region}:{account}:thing"
        self._urls_role = urls_role

    def create(self, job: str, devices: list[str], document: SignedManifest) -> None:
        """A snapshot job: devices that are away get it when they are back."""
        try:
            self._client.create_job(
                jobId=job,
                targets=[f"{self._things}/{device}" for device in devices],
                document=msgspec.json.encode(document).decode(),
                targetSelection="SNAPSHOT",
                presignedUrlConfig={"roleArn": self._urls_role, "expiresInSec": URL_SECONDS},
            )
        except self._client.exceptions.ResourceAlreadyExistsException:
            return  # made before a crash

    def executions(self, job: str) -> Mapping[str, tuple[str, str]]:
        """(status, reason) by device; reasons are read for those that failed only."""
        found: dict[str, tuple[str, str]] = {}
        try:
            pages = self._client.get_paginator("list_job_executions_for_job").paginate(jobId=job)
            rows = [row for page in pages for row in page["executionSummaries"]]
        except self._client.exceptions.ResourceNotFoundException:
            return {}
        for row in rows:
            device, status = row["thingArn"].rsplit("/", 1)[1], row["jobExecutionSummary"]["status"]
            found[device] = (
                status,
                self._reason(job, device) if status in ("FAILED", "REJECTED") else "",
            )
        return found

    def cancel(self, job: str) -> None:
        """Executions under way end too. A job that has ended by itself is as good."""
        try:
            self._client.cancel_job(jobId=job, force=True, comment="the rollout turned back")
        except (
            self._client.exceptions.InvalidRequestException,
            self._client.exceptions.ResourceNotFoundException,
        ):
            return

    def _reason(self, job: str, device: str) -> str:
        details = (
            self._client.describe_job_execution(jobId=job, thingName=device)["execution"]
            .get("statusDetails", {})
            .get("detailsMap", {})
        )
        return str(details.get("reason") or details.get("code") or "")


class HeartbeatFleet:
    """:class:`~registry.rollout.conductor.Fleet` from the devices' last heartbeats."""

    def __init__(
        self, devices: Callable[[str], Iterable[DeviceStatus]], now: float, fresh_seconds: float
    ) -> None:
        self._devices = devices
        self._now = now
        self._fresh = fresh_seconds

    def beats(self, fleet: str) -> Mapping[str, Beat]:
        """A device with a malformed heartbeat is away and runs no model."""
        return {
            status.device: Beat(
                status.heartbeat.model if status.heartbeat is not None else "",
                status.is_online(self._now, self._fresh),
            )
            for status in self._devices(fleet)
        }


def presigned(bucket: str, region: str) -> Any:
    """The placeholder that AWS IoT replaces with a presigned URL when a device asks for the job's
    document.

    https://docs.aws.amazon.com/iot/latest/developerguide/create-manage-jobs-presigned-URLs.html
    """
    return lambda key: (
        f"${{aws:iot:s3-presigned-url:https://s3.{region}.amazonaws.com/{bucket}/{key}}}"
    )


def _key(number: int) -> str:
    return f"{number:08d}"
