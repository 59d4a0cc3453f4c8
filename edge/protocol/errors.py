"""Why a message from the other side was refused."""

from __future__ import annotations

from edge.errors import CodedError

DEVICE_CODES = frozenset(
    {
        "app-error",
        "app-load",
        "app-missing",
        "arrays-missing",
        "bad-digest",
        "bad-kind",
        "bad-name",
        "bad-topic",
        "claim",
        "deadline",
        "device-error",
        "disk-full",
        "download-failed",
        "dtype",
        "foreign",
        "malformed",
        "metrics",
        "not-finite",
        "out-of-memory",
        "outdated",
        "shape",
        "too-large",
        "too-long",
        "truncated",
        "type",
        "unsigned",
        "upload-failed",
        "worker-died",
        "worse",
    }
)
"""Reason codes that a device may send.

Each is a metric of its own in CloudWatch and MLflow, so the set is closed: a device that made up
codes could create metrics without bound.
"""
OTHER_CODE = "other"
"""Counts every reason code that is not in :data:`DEVICE_CODES`."""


class ProtocolError(CodedError):
    """A message, name or object that breaks the protocol. ``code`` is counted in metrics."""
