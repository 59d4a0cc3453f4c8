"""The ports on AWS: a DynamoDB table, IoT Jobs and the devices table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.signed import SignedManifest
from edge.protocol.text import parse_json, printable
from edge.typed import from_json
from fl_runtime.run.devices import DeviceStatus, text_of
from fl_runtime.run.eligibility import is_of_earlier_release
from registry.errors import RegistryError
from registry.rollout.model import Answer, DeviceState, FleetRecord, Rollout
from registry.rollout.ports import ObjectUrl

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_CURRENT = "current"
"""Sort key of a fleet's record; rollouts have their numbers."""
_URL_SECONDS = 3600
"""How long a presigned URL is valid once AWS IoT has made it. It is AWS's maximum."""
_WITH_REASON = ("FAILED", "REJECTED")
_CODE_LIMIT = 60


class DynamoStore:
    """:class:`~registry.rollout.ports.RolloutStore` in the ``rollouts`` table."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def current(self, fleet: str) -> FleetRecord:
        """A fresh record for a fleet that has none."""
        body = self._body(fleet, _CURRENT)
        if not body:
            return FleetRecord(fleet=fleet)
        return parse_row(body, FleetRecord, f"{fleet}/{_CURRENT}")

    def replace(self, before: FleetRecord, after: FleetRecord) -> bool:
        """The condition compares the whole record: of two concurrent writers one fails."""
        condition, values = "attribute_not_exists(fleet)", {}
        if self._body(before.fleet, _CURRENT):
            condition = "body = :before"
            values = {":before": {"S": msgspec.json.encode(before).decode()}}
        return self._write(before.fleet, _CURRENT, after, condition, values)

    def get(self, fleet: str, number: int) -> Rollout | None:
        """A rollout."""
        body = self._body(fleet, _key(number))
        return parse_row(body, Rollout, f"{fleet}/{_key(number)}") if body else None

    def create(self, rollout: Rollout) -> bool:
        """The condition closes the race of two rollouts that take the same number."""
        condition = "attribute_not_exists(fleet)"
        return self._write(rollout.fleet, _key(rollout.number), rollout, condition)

    def put(self, rollout: Rollout) -> None:
        """Overwrite a rollout."""
        self._write(rollout.fleet, _key(rollout.number), rollout)

    def rollouts(self) -> list[Rollout]:
        """All rollouts of all fleets, newest first."""
        bodies = (row for row in _scan(self._client, self._table) if row[0] != _CURRENT)
        return sorted(_whole(bodies, Rollout), key=lambda rollout: rollout.started_at, reverse=True)

    def fleets(self) -> list[FleetRecord]:
        """The records of all fleets."""
        bodies = (row for row in _scan(self._client, self._table) if row[0] == _CURRENT)
        return list(_whole(bodies, FleetRecord))

    def _body(self, fleet: str, rollout: str) -> str:
        key = {"fleet": {"S": fleet}, "rollout": {"S": rollout}}
        found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        # A row without a body is malformed, not absent: it must not be taken for a new fleet's.
        return text_of(found["Item"], "body") or "null" if "Item" in found else ""

    def _write(
        self,
        fleet: str,
        rollout: str,
        value: msgspec.Struct,
        condition: str = "",
        values: Mapping[str, Any] | None = None,
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


def parse_row(body: str | bytes, kind: type[_T], name: str) -> _T:
    """The body of a row of the rollouts table. Raises RegistryError when it is malformed."""
    try:
        parsed: _T = parse_json(body, kind, f"The row {name} of the rollouts table")
    except ProtocolError as error:
        raise RegistryError(str(error)) from error
    return parsed


def _whole(rows: Iterable[tuple[str, str]], kind: type[_T]) -> Iterator[_T]:
    """The rows that are whole. One that is not is logged, and hides no other."""
    for key, body in rows:
        try:
            yield parse_row(body, kind, key)
        except RegistryError as error:
            event(logger, "row-skipped", logging.ERROR, row=key, reason=str(error))


class IotJobs:
    """:class:`~registry.rollout.ports.RolloutJobs` by AWS IoT."""

    def __init__(self, iot: Any, region: str, account: str, urls_role: str) -> None:
        self._client = iot
        self._things = f"arn:aws:iot:{region}:{account}:thing"
        self._urls_role = urls_role

    def create(self, job: str, devices: Sequence[str], document: SignedManifest) -> None:
        """Create a snapshot job (idempotent): offline devices get it when they are back."""
        targets = [f"{self._things}/{device}" for device in devices]
        try:
            self._client.create_job(
                jobId=job,
                targets=targets,
                document=msgspec.json.encode(document).decode(),
                targetSelection="SNAPSHOT",
                presignedUrlConfig={"roleArn": self._urls_role, "expiresInSec": _URL_SECONDS},
            )
        except self._client.exceptions.ResourceAlreadyExistsException as error:
            if not self._is_same(job, targets, document):
                raise RegistryError(
                    f"AWS IoT has another job named {job}, with other devices or another model: "
                    "cancel and delete it there."
                ) from error

    def executions(self, job: str) -> Mapping[str, Answer]:
        """Answers by device. Only failed executions cost a further call, for the reason."""
        try:
            pages = self._client.get_paginator("list_job_executions_for_job").paginate(jobId=job)
            rows = [row for page in pages for row in page["executionSummaries"]]
        except self._client.exceptions.ResourceNotFoundException:
            return {}
        found: dict[str, Answer] = {}
        for row in rows:
            device, status = row["thingArn"].rsplit("/", 1)[1], row["jobExecutionSummary"]["status"]
            why = self._reason(job, device) if status in _WITH_REASON else ("", "")
            found[device] = Answer(status, *why)
        return found

    def cancel(self, job: str) -> None:
        """Cancel a job with its executions in progress; one that has ended is left alone."""
        try:
            self._client.cancel_job(jobId=job, force=True, comment="the rollout turned back")
        except (
            self._client.exceptions.InvalidRequestException,
            self._client.exceptions.ResourceNotFoundException,
        ):
            return

    def _is_same(self, job: str, targets: Sequence[str], document: SignedManifest) -> bool:
        """Compares manifests without their signatures: ECDSA signs a text differently each time."""
        found = self._client.describe_job(jobId=job)["job"]
        try:
            text = self._client.get_job_document(jobId=job)["document"]
            manifest = from_json(text, type=SignedManifest).manifest
        except msgspec.DecodeError:
            return False
        return manifest == document.manifest and set(found["targets"]) == set(targets)

    def _reason(self, job: str, device: str) -> tuple[str, str]:
        """Reason and reason code, as the device gave them."""
        found = self._client.describe_job_execution(jobId=job, thingName=device)["execution"]
        details = found.get("statusDetails", {}).get("detailsMap", {})
        code = printable(str(details.get("code", "")), _CODE_LIMIT)
        return printable(str(details.get("reason") or code)), code


class HeartbeatFleet:
    """:class:`~registry.rollout.ports.FleetStatus` from the devices' last heartbeats."""

    def __init__(
        self,
        devices: Callable[[str], Iterable[DeviceStatus]],
        clock: Callable[[], float],
        fresh_seconds: float,
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._fresh = fresh_seconds

    def devices(self, fleet: str) -> Mapping[str, DeviceState]:
        """A device with a malformed heartbeat is offline and runs no model. One whose agent is of
        an earlier release is left out: it would refuse the manifest, and a fleet that is being
        updated would roll back. It is a stale device once its agent is updated.
        """
        now = self._clock()
        return {
            status.device: DeviceState(
                status.heartbeat.model if status.heartbeat is not None else "",
                status.is_online(now, self._fresh),
            )
            for status in self._devices(fleet)
            if not is_of_earlier_release(status.heartbeat)
        }


def object_url(bucket: str, region: str) -> ObjectUrl:
    """The placeholder that AWS IoT replaces with a presigned URL when a device gets its job.

    https://docs.aws.amazon.com/iot/latest/developerguide/create-manage-jobs-presigned-URLs.html
    """

    def placeholder(key: str) -> str:
        address = f"https://s3.{region}.amazonaws.com/{bucket}/{key}"
        return f"${{aws:iot:s3-presigned-url:{address}}}"

    return placeholder


def _scan(dynamodb: Any, table: str) -> Iterator[tuple[str, str]]:
    """The sort key and the body of every item."""
    for page in dynamodb.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            yield text_of(item, "rollout"), text_of(item, "body")


def _key(number: int) -> str:
    return f"{number:08d}"
