"""``mledgeops devices block`` records who shut which device out, and why."""

from __future__ import annotations

import argparse
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.devices_table import MemoryDevices

from pipelines.cli.commands.operate import blocking
from pipelines.errors import UsageError

IOT = SimpleNamespace(
    list_thing_principals=lambda thingName: {"principals": ["arn:cert/c1"]},
    describe_certificate=lambda certificateId: {"certificateDescription": {"status": "ACTIVE"}},
    update_certificate=lambda certificateId, newStatus: None,
)


def arguments(reason: str) -> argparse.Namespace:
    return argparse.Namespace(name="press-1", reason=reason, json=True, cloud="")


def test_a_block_without_a_reason_is_refused() -> None:
    with pytest.raises(UsageError, match="The reason is empty"):
        blocking.block_device(arguments(" "))


def test_blocks_and_their_ends_are_in_the_audit_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    trail: list[dict[str, Any]] = []
    audit = SimpleNamespace(append=lambda **entry: trail.append(entry))
    cloud = SimpleNamespace(deployment=SimpleNamespace(devices_table="devices"))
    clients = {"iot": IOT, "dynamodb": MemoryDevices()}
    monkeypatch.setattr(blocking.clouds, "use", lambda _: contextlib.nullcontext(cloud))
    monkeypatch.setattr(blocking, "client", clients.__getitem__)
    monkeypatch.setattr(blocking.wiring, "registry", lambda: SimpleNamespace(audit=audit))
    blocking.block_device(arguments("it is stolen"))
    blocking.unblock_device(arguments("it was found"))
    assert [(entry["what"], entry["subject"], entry["why"]) for entry in trail] == [
        ("block", "press-1", "it is stolen"),
        ("unblock", "press-1", "it was found"),
    ]
    assert all(entry["certificates"] == ("c1",) for entry in trail)
