"""Why a message from the other side was refused.

ProtocolError            carries a short machine-readable ``code`` that is counted per device
"""

from __future__ import annotations

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
        "unsigned",
        "upload-failed",
        "worker-died",
        "worse",
    }
)
"""The reasons a device may give. Each is a metric of its own, in CloudWatch and in MLflow, so a
device must not make up new ones.
"""
OTHER_CODE = "other"
"""Stands for a reason that no device of ours gives."""


class ProtocolError(Exception):
    """A message, name or object that breaks the protocol.

    ``code`` is stable and counted in metrics; the message is one sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
