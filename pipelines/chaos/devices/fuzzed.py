"""What a hostile device sends that fuzzing has found: the committed inputs, and mutations of its
own messages.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Command, Envelope
from edge.protocol.records import Records, decode_records
from pipelines.chaos.devices.mutations import mutated

CORPUS = Path(__file__).parents[3] / "tests" / "fuzz" / "corpus"
"""There in a checkout. An installed package does without it, and has the mutations alone."""
SEPARATOR = b"\n\n"
"""Between a reply, the header of its file and the data: see ``tests/fuzz/device_path.py``."""
REPLIES = 20
"""Sent before the honest one."""
TRIES = 50


def fuzzed_file(honest: bytes, dice: random.Random) -> bytes:
    """A weights file that is not an update of the same layout: that could rightly count."""
    known = [*_files(), honest]
    for _ in range(TRIES):
        blob = dice.choice(known)
        if dice.random() < 0.7:
            blob = mutated(honest if dice.random() < 0.5 else blob, known, dice)
        if blob and not is_update(blob, honest):
            return blob
    return b"\x00"


def is_update(blob: bytes, honest: bytes) -> bool:
    """Whether a file holds arrays like those of the honest update."""
    try:
        found, wanted = decode_records(blob), decode_records(honest)
    except ProtocolError:
        return False
    return _layout(found) == _layout(wanted)


def fuzzed_replies(command: Command, honest: bytes, dice: random.Random) -> list[bytes]:
    """Payloads for the reply topic: those found, under this command's names, and mutated ones."""
    known = [_named(body, command) for body in _bodies()]
    chosen = [dice.choice(known) if known else honest for _ in range(REPLIES // 2)]
    sealed = [_sealed(body, command) for body in chosen]
    return [*sealed, *(mutated(honest, sealed, dice) for _ in range(REPLIES // 2))]


def _layout(records: Records) -> list[tuple[str, str, tuple[int, ...]]]:
    return [
        (name, array.dtype.str, array.shape)
        for arrays in records.arrays.values()
        for name, array in arrays.items()
    ]


def _named(body: bytes, command: Command) -> bytes:
    for known, own in (
        (b'"run-1"', command.run),
        (b'"00001-train-0001-00000000"', command.phase),
        (b'"m-evil"', command.message_id),
    ):
        body = body.replace(known, b'"%s"' % own.encode())
    return body


def _sealed(body: bytes, command: Command) -> bytes:
    """The body in the envelope by which the IoT rule finds the cohort, as far as it is text."""
    text = body.decode("utf-8", "replace")
    return msgspec.json.encode(Envelope(key=command.reply_key, body=text))


@cache
def _files() -> list[bytes]:
    found = _inputs("records")
    return [*found, *(_file_of(blob) for blob in found)]


@cache
def _bodies() -> list[bytes]:
    paths = [data for folder in CORPUS.glob("path-*") for data in _inputs(folder.name)]
    return [*_inputs("reply"), *(data.partition(SEPARATOR)[0] for data in paths)]


def _inputs(target: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def _file_of(data: bytes) -> bytes:
    """Header and data as a weights file has them, behind the right length."""
    header, _, rest = data.partition(SEPARATOR)
    return len(header).to_bytes(8, "little") + header + rest
