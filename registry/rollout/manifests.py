"""Signed manifests, the documents by which devices switch to a model.

No manifest is signed for a candidate that is not what was linked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge.logs import event
from edge.protocol.signed import Manifest, SignedManifest, manifest_text
from fl_runtime.run.signing import Signer
from registry.provenance import ProvenanceMismatch, ProvenanceMissing
from registry.rollout.model import Candidate, Rollout
from registry.rollout.ports import ObjectUrl

logger = logging.getLogger(__name__)

DAY = 86_400.0


def expires_at(rollout: Rollout, started_at: float) -> float:
    """When the manifests of a wave expire; 0: never. A wave is over by then."""
    policy = rollout.policy
    if not policy.manifest_days:
        return 0.0
    return started_at + max(policy.manifest_days * DAY, policy.wave_seconds + DAY)


def period_of(last: Rollout, now: float) -> int:
    """Number of the period, as long as a manifest is valid, since the end of a rollout. A stale
    device has one job in each.
    """
    days = last.policy.manifest_days
    return max(0, int((now - last.ended_at) // (days * DAY))) if days else 0


@dataclass(frozen=True)
class Manifests:
    """Builds and signs manifests."""

    sign: Signer
    object_url: ObjectUrl
    verify: Callable[[Candidate], None]
    """Raises ProvenanceMissing or ProvenanceMismatch."""

    def switch(self, rollout: Rollout, started_at: float) -> SignedManifest:
        """Switch to the rollout's candidate, in a wave that started at ``started_at``."""
        self.verify(rollout.candidate)
        return self._signed(
            rollout.candidate,
            rollout,
            rollout.sequence,
            started_at,
            expires_at(rollout, started_at),
            forced=rollout.forced,
        )

    def rollback(self, rollout: Rollout) -> SignedManifest:
        """Return to the model before the rollout; a rollback never fails.

        Where there was none, devices stop using any. The same where it cannot be verified, unless
        it was when the rollout began: then its digest is known to be what was linked, and devices
        that hold the weights go back without asking for anything that was changed since.
        """
        sequence = rollout.sequence + 1
        started_at = rollout.back.started_at if rollout.back is not None else rollout.changed_at
        expires = expires_at(rollout, started_at)
        goal = rollout.previous if self._can_return(rollout) else None
        return self._signed(
            goal or rollout.candidate,
            rollout,
            sequence,
            started_at,
            expires,
            forced=True,
            remove=goal is None,
        )

    def _can_return(self, rollout: Rollout) -> bool:
        """Whether a rollback may name the previous model."""
        if rollout.previous is None:
            return False
        try:
            self.verify(rollout.previous)
        except (ProvenanceMismatch, ProvenanceMissing) as error:
            event(
                logger,
                "rollback-unverified" if rollout.previous_verified else "rollback-removes",
                logging.ERROR,
                fleet=rollout.fleet,
                version=rollout.previous.model_version,
                reason=str(error),
            )
            return rollout.previous_verified
        return True

    def update(
        self, candidate: Candidate, last: Rollout, sequence: int, period: int = 0
    ) -> SignedManifest:
        """Switch a stale device to what its fleet runs since its ``last`` rollout. ``period``: see
        :func:`period_of`; the manifest expires at the end of the next one.
        """
        days = last.policy.manifest_days
        self.verify(candidate)
        issued = last.ended_at + period * days * DAY
        expires = issued + 2 * days * DAY if days else 0.0
        return self._signed(candidate, last, sequence, issued, expires, forced=False)

    def _signed(
        self,
        candidate: Candidate,
        rollout: Rollout,
        sequence: int,
        issued: float,
        expires: float,
        *,
        forced: bool,
        remove: bool = False,
    ) -> SignedManifest:
        text = manifest_text(
            Manifest(
                fleet=candidate.fleet,
                model_version=candidate.model_version,
                digest=candidate.digest,
                size=candidate.size,
                app=candidate.app,
                metric=candidate.metric,
                goal=candidate.goal,
                tolerance=rollout.policy.tolerance,
                sequence=sequence,
                forced=forced,
                remove=remove,
                issued=issued if expires else 0.0,
                expires=expires,
            )
        )
        return SignedManifest(
            manifest=text.decode(), signature=self.sign(text), url=self.object_url(candidate.key)
        )
