"""Ids of IoT jobs: unique for each fleet, rollout and wave, and within AWS's limit.

An id is made of a readable part and a digest. Jobs of release 0.4 and earlier have other ids, which
their rollouts keep.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

ID_LIMIT = 64
"""An id matches ``[a-zA-Z0-9_-]{1,64}``
(https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html).
"""
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class JobIds:
    """``prefix``: the deployment's; roles may create jobs whose ids begin with it."""

    prefix: str

    def wave(self, fleet: str, number: int, wave: str, batch: int) -> str:
        """The id of one batch of a wave (``w0``, ``w1`` ..., ``back``)."""
        return self._id(number, wave, fleet, str(batch))

    def stale_device(self, fleet: str, number: int, device: str, period: int = 0) -> str:
        """The id of the job that updates one stale device to the model of a rollout. ``period``:
        see :func:`registry.rollout.manifests.period_of`.
        """
        return self._id(number, f"device{period or ''}", fleet, device)

    def _id(self, number: int, kind: str, fleet: str, part: str) -> str:
        # A JSON list keeps its items apart: ("a", "1b") and ("a1", "b") must differ.
        whole = json.dumps([self.prefix, fleet, number, kind, part]).encode()
        digest = hashlib.sha256(whole).hexdigest()[:_DIGEST_CHARACTERS]
        readable = f"{self.prefix}-{number}-{kind}"[: ID_LIMIT - _DIGEST_CHARACTERS - 1]
        return f"{readable}-{digest}"
