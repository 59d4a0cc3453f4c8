"""What the ECS metadata endpoint says of the server's own task: its address and its ARN."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

METADATA_TIMEOUT_SECONDS = 5.0


def own_address(metadata_uri: str) -> str:
    """This task's private IPv4 address, at which its proxies reach it.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
    """
    return str(_metadata(metadata_uri)["Networks"][0]["IPv4Addresses"][0])


def own_task(metadata_uri: str) -> str:
    """This task's ARN."""
    return str(_metadata(f"{metadata_uri}/task")["TaskARN"])


def _metadata(uri: str) -> Any:
    with urllib.request.urlopen(uri, timeout=METADATA_TIMEOUT_SECONDS) as answer:
        return json.load(answer)
