"""Signed manifests, the documents by which devices switch to a model."""

from __future__ import annotations

from dataclasses import dataclass

from edge.protocol.signed import Manifest, SignedManifest, manifest_text
from fl_runtime.run.signing import Signer
from registry.rollout.model import Candidate, Rollout
from registry.rollout.ports import ObjectUrl


@dataclass(frozen=True)
class Manifests:
    """Builds and signs manifests."""

    sign: Signer
    object_url: ObjectUrl

    def switch(self, rollout: Rollout) -> SignedManifest:
        """Switch to the rollout's candidate."""
        return self._signed(rollout.candidate, rollout, rollout.sequence, forced=rollout.forced)

    def rollback(self, rollout: Rollout) -> SignedManifest:
        """Return to the model before the rollout; where there was none, stop using any."""
        target = rollout.previous or rollout.candidate
        remove = rollout.previous is None
        return self._signed(target, rollout, rollout.sequence + 1, forced=True, remove=remove)

    def update(self, candidate: Candidate, last: Rollout, sequence: int) -> SignedManifest:
        """Switch a stale device to what its fleet runs since its ``last`` rollout."""
        return self._signed(candidate, last, sequence, forced=False)

    def _signed(
        self,
        candidate: Candidate,
        rollout: Rollout,
        sequence: int,
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
            )
        )
        return SignedManifest(
            manifest=text.decode(), signature=self.sign(text), url=self.object_url(candidate.key)
        )
