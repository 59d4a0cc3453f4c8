"""Blocking a device deactivates its certificates, and unblocking those brings back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fakes.devices_table import MemoryDevices

from edge.protocol.errors import ProtocolError
from fl_runtime.run.blocking import BlockList
from pipelines.devices.blocking import block, unblock
from pipelines.errors import UsageError


class _Missing(Exception):
    pass


class Iot:
    """One thing, ``press-1``, with three certificates."""

    exceptions = SimpleNamespace(ResourceNotFoundException=_Missing)

    def __init__(self) -> None:
        self.certificates = {"c1": "ACTIVE", "c2": "ACTIVE", "old": "INACTIVE"}

    def list_thing_principals(self, thingName: str) -> dict[str, list[str]]:
        if thingName != "press-1":
            raise _Missing
        return {"principals": [f"arn:aws:iot:r:a:cert/{name}" for name in self.certificates]}

    def describe_certificate(self, certificateId: str) -> dict[str, Any]:
        return {"certificateDescription": {"status": self.certificates[certificateId]}}

    def update_certificate(self, certificateId: str, newStatus: str) -> None:
        self.certificates[certificateId] = newStatus


def test_a_device_is_shut_out_and_let_in_again() -> None:
    iot, blocks = Iot(), BlockList(MemoryDevices(), "devices")
    made = block(iot, blocks, "press-1", reason="it is stolen", by="ann", at=1.0)
    assert set(iot.certificates.values()) == {"INACTIVE"}
    assert blocks.read() == {"press-1": made}
    assert made.certificates == ("c1", "c2")
    again = block(iot, blocks, "press-1", reason="still", by="bob", at=2.0)
    assert again.certificates == ("c1", "c2"), "a second block knows what the first deactivated"
    unblock(iot, blocks, "press-1")
    assert iot.certificates == {"c1": "ACTIVE", "c2": "ACTIVE", "old": "INACTIVE"}
    assert blocks.read() == {}


def test_an_unknown_device_and_one_that_is_not_blocked_are_refused() -> None:
    iot, blocks = Iot(), BlockList(MemoryDevices(), "devices")
    with pytest.raises(UsageError, match="no device press-2"):
        block(iot, blocks, "press-2", reason="x", by="ann", at=1.0)
    with pytest.raises(ProtocolError):
        block(iot, blocks, "a/b", reason="x", by="ann", at=1.0)
    with pytest.raises(UsageError, match="press-1 is not blocked"):
        unblock(iot, blocks, "press-1")
    assert blocks.read() == {}
