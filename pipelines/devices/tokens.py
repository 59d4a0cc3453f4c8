"""Enrolment tokens, and the thing attributes that hold what a device must know to enrol.

``mledgeops devices expect`` writes the attributes; the pre-provisioning hook checks them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

TOKEN_ATTRIBUTE = "enrolment_token_sha256"  # noqa: S105  # the attribute's name, not a token
EXPIRY_ATTRIBUTE = "enrolment_token_expires"
"""Unix seconds at which the token expires."""
FLEET_ATTRIBUTE = "fleet"
TOKEN_DAYS = 30
"""How long a token is valid, if the operator says nothing else."""


def things_of(iot: Any, fleet: str) -> set[str]:
    """Names of the things that the operator has put into a fleet."""
    pages = iot.get_paginator("list_things").paginate(
        attributeName=FLEET_ATTRIBUTE, attributeValue=fleet
    )
    return {thing["thingName"] for page in pages for thing in page["things"]}


def token_digest(token: str) -> str:
    """SHA-256 of an enrolment token in hex; the thing stores this, never the token."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_expiry(attributes: Mapping[str, str]) -> float:
    """When a thing's token expires; 0 for one without expiry, which 0.4 or earlier made."""
    try:
        return float(attributes.get(EXPIRY_ATTRIBUTE, "0"))
    except ValueError:
        return 0.0


def token_matches(token: str, digest: str) -> bool:
    """Whether a token has this digest, compared in constant time. An empty digest matches none."""
    return bool(digest) and hmac.compare_digest(digest, token_digest(token))
