"""The AWS clients that bring a local fleet up, and look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FleetClients:
    """AWS clients that bring devices up."""

    iot: Any
    """Makes their certificates."""
    kms: Any
    """Gives the public keys that they trust."""
    dynamodb: Any
    """Has their heartbeats."""
