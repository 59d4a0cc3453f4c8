"""The ports' adapters on AWS, with their clients handed in; and what entry points read from the
environment and make: settings, resource names, clients.

boto3 reads the endpoints from ``AWS_ENDPOINT_URL``, so the same code reaches the local cloud.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from edge.logs import event
from edge.protocol.names import is_name, topic
from edge.protocol.upload_form import form_address
from fl_runtime.run.devices import FRESH_SECONDS, text_of
from fl_runtime.run.errors import ObjectMissing, SettingMissing
from fl_runtime.run.ports import StoredReply

logger = logging.getLogger(__name__)

RETRIES = {"mode": "standard", "max_attempts": 8}
"""Exponential backoff up to 20 s, so a task survives about a minute of throttling or errors:
https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
"""
DEFAULT_PREFIX = "mledgeops"
_PART = 2**20
"""Bytes of an object that are read at a time."""
PRESIGN_LIMIT_SECONDS = 7 * 86_400
"""Longest validity of a URL signed with SigV4."""


@dataclass(frozen=True, kw_only=True)
class ResourceNames:
    """The AWS resources of a task or function."""

    bucket: str
    devices_table: str
    replies_table: str
    runs_table: str
    prefix: str = DEFAULT_PREFIX
    """Begins the names of what a run makes for itself."""


def names_from_environment(environ: dict[str, str] | None = None) -> ResourceNames:
    """Read the resource names. Raises SettingMissing, naming the first variable that is not set."""
    return ResourceNames(
        bucket=setting("MLEDGEOPS_BUCKET", environ),
        devices_table=setting("MLEDGEOPS_DEVICES_TABLE", environ),
        replies_table=setting("MLEDGEOPS_REPLIES_TABLE", environ),
        runs_table=setting("MLEDGEOPS_RUNS_TABLE", environ),
        # The cluster is named by the prefix alone. A task definition of 0.4 does not give it.
        prefix=(os.environ if environ is None else environ).get(
            "MLEDGEOPS_CLUSTER", DEFAULT_PREFIX
        ),
    )


def setting(name: str, environ: dict[str, str] | None = None) -> str:
    """An environment variable of a task or function. Raises SettingMissing when it is not set."""
    value = (os.environ if environ is None else environ).get(name)
    if not value:
        raise SettingMissing(
            f"{name} is not set. The task definition or the function's configuration sets it."
        )
    return value


def fresh_seconds(environ: dict[str, str] | None = None) -> float:
    """How long a device counts as online after its last heartbeat, as the deployment sets it."""
    source = os.environ if environ is None else environ
    return float(source.get("MLEDGEOPS_FRESH_SECONDS", FRESH_SECONDS))


def client(service: str) -> Any:
    """A boto3 client with our retry policy. For entry points only, and never at import."""
    return boto3.client(service, config=client_config(service))


def client_config(service: str) -> Config:
    """Our retry policy, and what a service's client needs."""
    return Config(
        retries=RETRIES,
        # Objects encrypted with KMS can only be presigned with SigV4:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
        signature_version="s3v4" if service == "s3" else None,
        # Cohorts in one process share a client among their threads; the default is 10.
        max_pool_connections=32,
    )


class IotCommands:
    """:class:`~fl_runtime.run.ports.Commands` over the IoT data plane."""

    def __init__(self, iot_data: Any) -> None:
        self._client = iot_data

    def send(self, fleet: str, device: str, payload: bytes, seconds: float) -> None:
        """Publish with QoS 1. The message expires with the command's deadline, so a device that
        reconnects later never sees it.
        """
        self._client.publish(
            topic=topic(fleet, device, "command"),
            qos=1,
            payload=payload,
            # In whole seconds; 0 would mean that the message never expires.
            messageExpiry=max(1, int(seconds)),
        )


class DynamoReplies:
    """:class:`~fl_runtime.run.ports.Replies` from the table that the IoT rule writes."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._client = dynamodb
        self._table = table

    def read(self, reply_key: str) -> list[StoredReply]:
        """All pages, with strongly consistent reads. A row without a sender is skipped."""
        found = [decode_reply(row) for row in self._rows(reply_key)]
        skipped = found.count(None)
        if skipped:
            event(logger, "rows-skipped", logging.WARNING, table=self._table, count=skipped)
        return [reply for reply in found if reply is not None]

    def _rows(self, reply_key: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            # The last read before the deadline must see every reply that arrived in time.
            ConsistentRead=True,
            KeyConditionExpression="reply_key = :key",
            ExpressionAttributeValues={":key": {"S": reply_key}},
        )
        for page in pages:
            yield from page["Items"]


def decode_reply(row: Mapping[str, Any]) -> StoredReply | None:
    """A row of the replies table as DynamoDB returns it; None without its sender's name.

    A reply may lack its body, or have one of another type: the device sent an envelope without. It
    is then empty, which no reply is.
    """
    fleet, device = text_of(row, "fleet"), text_of(row, "device")
    if not (is_name(fleet) and is_name(device)):
        return None
    return StoredReply(fleet, device, text_of(row, "body"))


class S3Objects:
    """:class:`~fl_runtime.run.ports.ObjectStore` in one bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._client = s3
        self.bucket = bucket

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Checks the length before it reads the body."""
        data: bytes = self._body(key, limit).read()
        return data

    def download(self, key: str, file: BinaryIO, limit: int) -> str:
        """Checks the length before it reads the body."""
        body = self._body(key, limit)
        found = hashlib.sha256()
        for part in body.iter_chunks(_PART):
            found.update(part)
            file.write(part)
        return found.hexdigest()

    def _body(self, key: str, limit: int | None = None) -> Any:
        """An object's stream. Raises ObjectMissing, also for a larger one than ``limit``."""
        with _missing(self.bucket, key):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
        if limit is not None and answer["ContentLength"] > limit:
            raise ObjectMissing(f"s3://{self.bucket}/{key} is larger than announced")
        return answer["Body"]

    def put(self, key: str, data: bytes) -> None:
        """Encrypted as the bucket's default says."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def discard(self, key: str) -> None:
        """A failure is logged."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            event(logger, "not-deleted", logging.WARNING, key=key, reason=str(error)[:300])

    def size(self, key: str) -> int:
        """Size of an object in bytes. Raises ObjectMissing."""
        with _missing(self.bucket, key):
            return int(self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"])

    def digest(self, key: str) -> str:
        """SHA-256 of an object in hex; it is read in parts. Raises ObjectMissing."""
        found = hashlib.sha256()
        for part in self._body(key).iter_chunks(_PART):
            found.update(part)
        return found.hexdigest()

    def url_to_get(self, key: str, seconds: float) -> str:
        """Expires with the signer's credentials if that is sooner:
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
        """
        return self._presign("get_object", key, seconds)

    def url_to_put(self, key: str, seconds: float, limit: int) -> str:
        """Writes one key only, by a form whose policy limits the size:
        https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
        """
        form = self._client.generate_presigned_post(
            self.bucket,
            key,
            Conditions=[["content-length-range", 0, limit]],
            ExpiresIn=_expires(seconds),
        )
        return form_address(form["url"], form["fields"])

    def keys(self, prefix: str) -> list[str]:
        """All keys under a prefix, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def _presign(self, operation: str, key: str, seconds: float) -> str:
        url: str = self._client.generate_presigned_url(
            operation, Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=_expires(seconds)
        )
        return url


@contextlib.contextmanager
def _missing(bucket: str, key: str) -> Iterator[None]:
    """Translate S3's errors for an absent object to ObjectMissing."""
    try:
        yield
    except ClientError as error:
        # HEAD has no body, so its error code is the bare status:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
        if error.response["Error"]["Code"] in ("NoSuchKey", "404", "NoSuchBucket"):
            raise ObjectMissing(f"s3://{bucket}/{key} is not there") from error
        raise


def _expires(seconds: float) -> int:
    """How long an address is valid. Rounded up: it must outlive the command's deadline."""
    return max(1, min(PRESIGN_LIMIT_SECONDS, int(seconds) + 1))
