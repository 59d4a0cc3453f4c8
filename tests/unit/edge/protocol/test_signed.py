"""What is signed names everything that a device acts on."""

from __future__ import annotations

import msgspec
import pytest
from fakes.devices import a_command
from fakes.keys import a_manifest

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.signed import command_text, manifest_text, parse_manifest


def test_the_text_of_a_command_changes_with_all_that_it_runs() -> None:
    command = a_command()
    texts = {command_text(command, command.content)}
    for change in (
        {"run": "run-2"},
        {"phase": "p"},
        {"kind": "query"},
        {"app": "b" * 64},
        {"arrays": ObjectRef("c" * 64, 1)},
        {"run_config": '{"lr": 9}'},
    ):
        texts.add(command_text(msgspec.structs.replace(command, **change), command.content))
    texts.add(command_text(command, "other content"))
    assert len(texts) == 8


def test_the_text_is_one_for_all_devices_and_ways_of_delivery() -> None:
    """One signature serves a phase: address and claim check are not part of it."""
    command = a_command()
    moved = msgspec.structs.replace(command, message_id="m2", node_id=9, upload_url="x", content="")
    assert command_text(moved, command.content) == command_text(command, command.content)


def test_a_manifest_is_parsed_from_its_signed_text() -> None:
    assert parse_manifest(manifest_text(a_manifest()).decode()) == a_manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"more": 1},
        {"fleet": "../x"},
        {"digest": "zz"},
        {"model_version": "wind"},
        {"model_version": "wind/1\n"},
        {"sequence": 0},
        {"tolerance": -0.1},
        {"goal": "improve"},
    ],
)
def test_a_malformed_manifest_is_refused(change: dict) -> None:
    text = msgspec.json.encode({**msgspec.to_builtins(a_manifest()), **change}).decode()
    with pytest.raises(ProtocolError) as refused:
        parse_manifest(text)
    assert refused.value.code == "malformed"
