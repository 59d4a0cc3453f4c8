"""Enrolment tokens, and the thing attributes that hold what a device must know to enrol.

``mledgeops devices expect`` writes the attributes; the pre-provisioning hook checks them.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

TOKEN_ATTRIBUTE = "enrolment_token_sha256"  # noqa: S105  # the attribute's name, not a token
FLEET_ATTRIBUTE = "fleet"


def things_of(iot: Any, fleet: str) -> set[str]:
    """Names of the things that the operator has put into a fleet."""
    pages = iot.get_paginator("list_things").paginate(
        attributeName=FLEET_ATTRIBUTE, attributeValue=fleet
    )
    return {thing["thingName"] for page in pages for thing in page["things"]}


def token_digest(token: str) -> str:
    """SHA-256 of an enrolment token in hex; the thing stores this, never the token."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_matches(token: str, digest: str) -> bool:
    """Whether a token has this digest, compared in constant time. An empty digest matches none."""
    return bool(digest) and hmac.compare_digest(digest, token_digest(token))
