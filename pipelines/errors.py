"""Errors of commands and notebooks. The tree of all errors is drawn in :mod:`edge.errors`."""

from __future__ import annotations

from edge.errors import MLEdgeOpsError


class UsageError(MLEdgeOpsError):
    """The user asked for something that cannot be done. The text says what, in one sentence."""

    code = "usage"


class DeployError(MLEdgeOpsError):
    """The deployment cannot be made. The text says why, in one sentence."""

    code = "deploy"
