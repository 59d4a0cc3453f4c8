"""The address at which a run's proxies reach its server."""

from __future__ import annotations

import json
import urllib.request

METADATA_TIMEOUT_SECONDS = 5.0


def own_address(metadata_uri: str) -> str:
    """This task's private IPv4 address, from the ECS task metadata endpoint.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
    """
    with urllib.request.urlopen(metadata_uri, timeout=METADATA_TIMEOUT_SECONDS) as answer:
        address: str = json.load(answer)["Networks"][0]["IPv4Addresses"][0]
    return address
