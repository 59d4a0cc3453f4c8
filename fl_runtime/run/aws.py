"""The ports on AWS, by boto3. Endpoints come from ``AWS_ENDPOINT_URL``: the local cloud is reached
alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from edge.protocol.names import topic
from fl_runtime.run.devices import FRESH_SECONDS
from fl_runtime.run.errors import ObjectMissing, SettingMissing
from fl_runtime.run.ports import StoredReply

RETRIES = {"mode": "standard", "max_attempts": 8}
"""With backoff up to 20 s: about a minute of throttling or errors is survived without a restart."""
PRESIGN_LIMIT_SECONDS = 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class ResourceNames:
    """The resources a task uses, from its environment."""

    bucket: str
    devices_table: str
    replies_table: str
    runs_table: str


def names_from_environment(environ: dict[str, str] | None = None) -> ResourceNames:
    """Read resource names; raises SettingMissing naming the first variable that is not there."""
    return ResourceNames(
        bucket=setting("MLEDGEOPS_BUCKET", environ),
        devices_table=setting("MLEDGEOPS_DEVICES_TABLE", environ),
        replies_table=setting("MLEDGEOPS_REPLIES_TABLE", environ),
        runs_table=setting("MLEDGEOPS_RUNS_TABLE", environ),
    )


def setting(name: str, environ: dict[str, str] | None = None) -> str:
    """A variable of the task's or function's environment; raises SettingMissing."""
    value = (os.environ if environ is None else environ).get(name)
    if not value:
        raise SettingMissing(
            f"{name} is not set: this program is started by its task definition, which sets it."
        )
    return value


def fresh_seconds(environ: dict[str, str] | None = None) -> float:
    """How long a device counts as online after its last heartbeat, as the deployment sets it."""
    source = os.environ if environ is None else environ
    return float(source.get("MLEDGEOPS_FRESH_SECONDS", FRESH_SECONDS))


def client(service: str) -> Any:
    """A boto3 client with our retry policy. Made by entry points only, never at import."""
    config = Config(
        retries=RETRIES,
        signature_version="s3v4" if service == "s3" else None,
        max_pool_connections=32,
    )
    return boto3.client(service, config=config)


class IotCommands:
    """:class:`~fl_runtime.run.ports.Commands` by the IoT data plane."""

    def __init__(self, iot_data: Any) -> None:
        self._client = iot_data

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """QoS 1; the message expires with its deadline, so a device that wakes late never sees it."""
        self._client.publish(
            topic=topic(fleet, device, "command"),
            qos=1,
            payload=payload,
            messageExpiry=max(1, int(seconds)),
        )


class DynamoReplies:
    """:class:`~fl_runtime.run.ports.Replies` from the table that the IoT rule writes."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def read(self, reply_key: str) -> list[StoredReply]:
        """Strongly consistent, all pages."""
        return [
            StoredReply(row["fleet"]["S"], row["device"]["S"], row["body"]["S"])
            for row in self._rows(reply_key)
        ]

    def _rows(self, reply_key: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="reply_key = :key",
            ExpressionAttributeValues={":key": {"S": reply_key}},
        )
        for page in pages:
            yield from page["Items"]


class S3Objects:
    """:class:`~fl_runtime.run.ports.ObjectStore` in one bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._client = s3
        self.bucket = bucket

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Reads no more than ``limit`` bytes, whatever the object's size."""
        with self._missing(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
        if limit is not None and answer["ContentLength"] > limit:
            raise ObjectMissing(f"s3://{self.bucket}/{key} is larger than announced")
        data: bytes = answer["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Encryption is the bucket's default."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def size(self, key: str) -> int:
        """Bytes of an object; raises ObjectMissing."""
        with self._missing(key):
            return int(self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"])

    def url_to_get(self, key: str, seconds: float) -> str:
        """Valid at most as long as the signer's own credentials."""
        return self._presign("get_object", key, seconds)

    def url_to_put(self, key: str, seconds: float) -> str:
        """Valid for one key only."""
        return self._presign("put_object", key, seconds)

    def keys(self, prefix: str) -> list[str]:
        """All keys under a prefix, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    @contextlib.contextmanager
    def _missing(self, key: str) -> Iterator[None]:
        """S3's words for an absent object, as ours."""
        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404", "NoSuchBucket"):
                raise ObjectMissing(f"s3://{self.bucket}/{key} is not there") from error
            raise

    def _presign(self, operation: str, key: str, seconds: float) -> str:
        expires = max(1, min(PRESIGN_LIMIT_SECONDS, int(seconds) + 1))
        url: str = self._client.generate_presigned_url(
            operation, Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=expires
        )
        return url
