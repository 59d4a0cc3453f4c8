"""Settings of a task, and the adapters. Their contracts on the local cloud: tests/contract."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from edge.protocol.upload_form import upload_request
from fl_runtime.run.aws import (
    PRESIGN_LIMIT_SECONDS,
    DynamoReplies,
    IotCommands,
    ResourceNames,
    S3Objects,
    fresh_seconds,
    names_from_environment,
    setting,
)
from fl_runtime.run.devices import FRESH_SECONDS
from fl_runtime.run.errors import ObjectMissing, SettingMissing
from fl_runtime.run.ports import StoredReply

ENVIRONMENT = {
    "MLEDGEOPS_BUCKET": "b",
    "MLEDGEOPS_DEVICES_TABLE": "d",
    "MLEDGEOPS_REPLIES_TABLE": "r",
    "MLEDGEOPS_RUNS_TABLE": "runs",
}


def test_names_come_from_the_environment() -> None:
    assert names_from_environment(ENVIRONMENT) == ResourceNames(
        bucket="b", devices_table="d", replies_table="r", runs_table="runs"
    )
    for missing in ENVIRONMENT:
        rest = {name: value for name, value in ENVIRONMENT.items() if name != missing}
        with pytest.raises(SettingMissing, match=missing):
            names_from_environment(rest)


def test_an_empty_setting_is_a_missing_one() -> None:
    with pytest.raises(SettingMissing, match="X is not set"):
        setting("X", {"X": ""})


def test_freshness_is_the_deployments_or_the_default() -> None:
    assert fresh_seconds({}) == FRESH_SECONDS
    assert fresh_seconds({"MLEDGEOPS_FRESH_SECONDS": "15"}) == 15.0


class IotData:
    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def publish(self, **given: Any) -> None:
        self.published.append(given)


@pytest.mark.parametrize(("seconds", "expiry"), [(0.2, 1), (59.9, 59)])
def test_a_command_expires_with_its_deadline(seconds: float, expiry: int) -> None:
    iot = IotData()
    IotCommands(iot).send("f", "d", b"{}", seconds)
    (sent,) = iot.published
    assert (sent["topic"], sent["qos"], sent["messageExpiry"]) == ("fl/f/d/command", 1, expiry)


class Paged:
    """A paginator over given pages."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.asked = pages, {}

    def get_paginator(self, operation: str) -> Paged:
        return self

    def paginate(self, **given: Any) -> tuple[dict[str, Any], ...]:
        self.asked = given
        return self.pages


def test_replies_of_all_pages_are_read_consistently() -> None:
    row = {"fleet": {"S": "f"}, "device": {"S": "d"}, "body": {"S": "{}"}}
    paged = Paged({"Items": [row]}, {"Items": [row]})
    assert DynamoReplies(paged, "replies").read("key") == [StoredReply("f", "d", "{}")] * 2
    assert paged.asked["ConsistentRead"] is True


class S3(Paged):
    """S3 with one object of five bytes, ``a``."""

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key != "a":
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"ContentLength": 5, "Body": StreamingBody(io.BytesIO(b"12345"), 5)}

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "HeadObject")

    def generate_presigned_url(self, operation: str, Params: dict, ExpiresIn: int) -> str:
        return f"{operation} {Params['Key']} {ExpiresIn}"

    def generate_presigned_post(
        self, bucket: str, key: str, Conditions: list, ExpiresIn: int
    ) -> dict[str, Any]:
        return {"url": f"post {bucket}", "fields": {"key": key, "x": f"{Conditions} {ExpiresIn}"}}


def test_objects_are_read_up_to_their_announced_size() -> None:
    objects = S3Objects(S3(), "b")
    assert objects.get("a", 5) == b"12345"
    with pytest.raises(ObjectMissing, match="larger than announced"):
        objects.get("a", 4)
    with pytest.raises(ObjectMissing, match="s3://b/x is not there"):
        objects.get("x")


def test_a_download_is_hashed_and_read_up_to_its_announced_size() -> None:
    objects, file = S3Objects(S3(), "b"), io.BytesIO()
    assert objects.download("a", file, 5) == hashlib.sha256(b"12345").hexdigest()
    assert file.getvalue() == b"12345"
    with pytest.raises(ObjectMissing, match="larger than announced"):
        objects.download("a", io.BytesIO(), 4)
    with pytest.raises(ObjectMissing, match="s3://b/x is not there"):
        objects.download("x", io.BytesIO(), 5)


def test_other_errors_of_s3_are_not_hidden() -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        S3Objects(S3(), "b").size("a")


@pytest.mark.parametrize(
    ("seconds", "expires"), [(0.0, 1), (60.0, 61), (1e9, PRESIGN_LIMIT_SECONDS)]
)
def test_urls_expire_after_the_deadline_and_within_aws_limit(seconds: float, expires: int) -> None:
    objects = S3Objects(S3(), "b")
    assert objects.url_to_get("a", seconds) == f"get_object a {expires}"
    form = upload_request(objects.url_to_put("a", seconds, 9), 9)
    assert (form.method, form.url) == ("POST", "post b")
    assert f"[['content-length-range', 0, 9]] {expires}" in form.head.decode()


class Pages:
    """DynamoDB's query, with one page of rows."""

    def __init__(self, *rows: Any) -> None:
        self.rows = list(rows)

    def get_paginator(self, _: str) -> Pages:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Items": self.rows}]


@pytest.mark.parametrize(
    "body",
    [None, {}, {"M": {"a": {"S": "b"}}}, {"N": "7"}, {"NULL": True}, {"L": []}, {"BOOL": True}],
)
def test_a_reply_without_a_body_is_an_empty_one_and_harms_no_other(body: Any) -> None:
    sender = {"fleet": {"S": "f"}, "device": {"S": "d"}}
    bad = sender if body is None else {**sender, "body": body}
    good = {"fleet": {"S": "f"}, "device": {"S": "e"}, "body": {"S": "x"}}
    found = DynamoReplies(Pages(bad, {"body": {"S": "x"}}, good), "r").read("key")
    assert found == [StoredReply("f", "d", ""), StoredReply("f", "e", "x")]
