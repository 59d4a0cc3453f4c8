"""What is fuzzed. A target takes any bytes, and raises only when a property is broken:

- a decoder raises ProtocolError, or what its documentation names, and nothing else;
- what a device sends costs that device its result, and no other device its own;
- time and memory grow no faster than the input (:func:`measured`).
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.agent.certificate_rotation import parse_shadow
from edge.agent.jobs import parse_answer
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    CLAIMED_LIMIT,
    Command,
    Envelope,
    Reply,
    decode,
    decode_heartbeat,
    decode_order,
    unseal,
)
from edge.protocol.names import check_digest, check_kind, check_name
from edge.protocol.orders import Grant, read_unverified
from edge.protocol.records import decode_records, decode_skeleton, encode_records, encode_skeleton
from edge.protocol.signed import SignedManifest, parse_manifest
from edge.protocol.text import parse_json, printable
from fl_runtime.cohort.rpc import StreamRefused, read_message
from fl_runtime.run.aws import decode_reply
from fl_runtime.run.devices import DeviceStatus, DeviceTable, decode_row
from fl_runtime.run.eligibility import eligible
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import decode_spec
from fl_runtime.server.rounds.checkpoints import decode as decode_checkpoint
from fuzz.device_path import DEVICE_PATHS, device_to_fold, file_of
from fuzz.order_path import gate
from fuzz.seeds import SPEC
from fuzz.stored import stored
from pipelines.cli.output import readable
from pipelines.desk.fleet_rows import device_row, reported_model
from registry.errors import RegistryError
from registry.rollout.aws import parse_row
from registry.rollout.model import FleetRecord, Rollout

CORPUS = Path(__file__).parent / "corpus"
SECONDS, SECONDS_PER_BYTE = 0.5, 20e-6
"""Processor time that any input may take, also on a slow machine."""
MEMORY, MEMORY_PER_BYTE = 2**21, 80

Target = Callable[[bytes], None]


def _refusing(
    *parsers: Callable[[Any], object], refusal: type[Exception] = ProtocolError
) -> Target:
    """Each parser, with the bytes and with them as text, lone surrogates and all."""

    def target(data: bytes) -> None:
        for value in (data, data.decode("utf-8", "surrogateescape")):
            for parse in parsers:
                try:
                    parse(value)
                except refusal as error:
                    assert str(error).isprintable(), "a refusal is shown on terminals"

    return target


def _records(data: bytes) -> None:
    """Whatever is read can be written again."""
    for blob in (data, file_of(data)):
        try:
            found = decode_records(blob)
        except ProtocolError as error:
            assert str(error).isprintable()
            continue
        encode_records(found)


def _skeleton(data: bytes) -> None:
    for value in (data, data.decode("utf-8", "surrogateescape")):
        try:
            found = decode_skeleton(value)
        except ProtocolError as error:
            assert str(error).isprintable()
            continue
        assert decode_skeleton(encode_skeleton(found)).names() == found.names()


def _rows(data: bytes) -> None:
    """Rows as DynamoDB returns them: any JSON under the columns that the rules fill."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = data.decode("utf-8", "surrogateescape")
    for row in (
        parsed if isinstance(parsed, dict) else {},
        {"fleet": {"S": "f"}, "device": {"S": "d"}, "body": parsed},
        {"fleet": {"S": "f"}, "device": {"S": "d"}, "body": {"S": parsed}},
    ):
        _shown(decode_row({**row, "fleet": {"S": "f"}, "device": {"S": "d"}}))
        for status in DeviceTable(Rows(row), "devices").all():
            check_name("device", status.device)
        decode_reply(row)


class Rows:
    """DynamoDB with one row."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def get_paginator(self, _: str) -> Rows:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Items": [self._row]}]


def _shown(status: DeviceStatus) -> None:
    """What a run and ``mledgeops fleet`` make of a device's last heartbeat."""
    eligible([status], SPEC, 100.0, 90.0)
    if status.heartbeat is not None and status.heartbeat.state != "offline":
        row = device_row(status, None)
        assert all(str(value).isprintable() for value in row.values())
        json.dumps(row, allow_nan=False)


def _text(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert printable(text).isprintable()
    readable(text).encode()
    reported_model(data)


def _checkpoint(data: bytes) -> None:
    for blob in (data, file_of(data)):
        try:
            decode_checkpoint(blob)
        except ProtocolError:
            continue


def _text_only(parse: Callable[[str], object]) -> Callable[[Any], object]:
    return lambda value: parse(value) if isinstance(value, str) else None


def _bytes_only(parse: Callable[[bytes], object]) -> Callable[[Any], object]:
    return lambda value: parse(value) if isinstance(value, bytes) else None


TARGETS: dict[str, Target] = {
    "records": _records,
    "skeleton": _skeleton,
    "gate": gate,
    "order": _refusing(
        decode_order,
        lambda data: decode(data, Command, CLAIMED_LIMIT),
        _bytes_only(read_unverified),
        lambda data: parse_json(data, Grant, "The grant"),
    ),
    "reply": _refusing(
        lambda data: decode(data, Reply),
        lambda data: decode(data, Envelope),
        _bytes_only(lambda data: unseal(data, Reply)),
    ),
    "heartbeat": _refusing(decode_heartbeat),
    "manifest": _refusing(
        _text_only(parse_manifest),
        lambda data: parse_json(data, SignedManifest, "It"),
        _bytes_only(parse_answer),
    ),
    "shadow": _refusing(_bytes_only(parse_shadow)),
    "names": _refusing(
        _text_only(lambda text: check_name("it", text)),
        _text_only(check_digest),
        _text_only(check_kind),
    ),
    "rows": _rows,
    "text": _text,
    "rollout": _refusing(
        lambda data: parse_row(data, Rollout, "it"),
        lambda data: parse_row(data, FleetRecord, "it"),
        refusal=RegistryError,
    ),
    "spec": _refusing(_bytes_only(decode_spec), refusal=RunFailed),
    "checkpoint": _checkpoint,
    "proxy": _refusing(_bytes_only(read_message), refusal=StreamRefused),
    "stored": stored,
    **{f"path-{name}": device_to_fold(phase) for name, phase in DEVICE_PATHS.items()},
}


def measured(target: Target, data: bytes) -> None:
    """Run a target, and hold its time and memory against the size of the input."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        target(data)
        took, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < SECONDS + SECONDS_PER_BYTE * len(data), f"{took:.2f} s for {len(data)} bytes"
    assert peak < MEMORY + MEMORY_PER_BYTE * len(data), f"{peak} bytes for {len(data)}"


def kept(name: str) -> list[bytes]:
    """The committed inputs of a target."""
    return [file.read_bytes() for file in sorted((CORPUS / name).glob("*"))]
