"""The registry's errors.

MLEdgeOpsError
  x RegistryError     a version, a package, a policy or a rollout is not what the request needs
    · RolloutBusy     another rollout to the same fleet is under way
"""

from __future__ import annotations

from edge.errors import MLEdgeOpsError


class RegistryError(MLEdgeOpsError):
    """The registry refuses a request, in one sentence."""

    code = "registry"


class RolloutBusy(RegistryError):
    """Another rollout to the same fleet is under way."""

    code = "rollout-busy"
