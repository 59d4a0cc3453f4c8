"""What a device's shadow wants of it."""

from __future__ import annotations

from typing import Any

import msgspec


class Desired(msgspec.Struct):
    """``state.desired`` of a device's shadow."""

    certificate_after: float | None = None
    """Unix time: a certificate issued before it is to be renewed."""


class _Document(msgspec.Struct):
    """A shadow document: ``get/accepted`` has the desired state under ``desired``, a delta has it
    bare.
    """

    state: dict[str, Any] = {}


def parse_shadow(payload: bytes) -> Desired:
    """What a shadow document or delta asks for; raises msgspec.DecodeError."""
    state = msgspec.json.decode(payload, type=_Document).state
    return msgspec.convert(state.get("desired", state), Desired)
