"""What a hostile device can do wrong: to its update, its file, its reply or its topics."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from edge.protocol.messages import Command, ObjectRef, Reply, seal
from edge.protocol.records import Records, ValueMap, digest, encode_records
from pipelines.chaos.app.steady.model import Weights, examples
from pipelines.chaos.devices.fuzzed import fuzzed_file, fuzzed_replies

HONEST = "honest"
HARMLESS = frozenset(
    {
        HONEST,
        "duplicate",
        "replay",
        "forge-topic",
        "heartbeat-garbage",
        "lying-evaluation",
        "flood",
        "other-key",
        "reply-garbage",
        "fuzzed-reply",
    }
)
"""Behaviours whose update itself is valid and may count."""

SPOILED: dict[str, Callable[[Weights], Weights]] = {
    "nan": lambda w: np.full_like(w, np.nan),
    "infinite": lambda w: np.where(np.arange(w.size) == w.size // 2, np.float32(np.inf), w),
    "huge": lambda w: (w * np.float32(1e6)).astype(np.float32),
    "shape": lambda w: w[:-1],
    "dtype": lambda w: w.astype(np.float64),
}
"""Changes of the trained weights."""
METRICS: dict[str, ValueMap] = {
    "no-examples": {},
    "zero-examples": {"num-examples": 0},
    "negative-examples": {"num-examples": -5},
    "many-examples": {"num-examples": 1e300},
    "huge-weight": {"num-examples": 10**12},
    "sybil-keys": {"num-examples": 14, "mine": [0.0, 1.0]},
    "odd-metrics": {"num-examples": 14, "surprise": 1.0},
    "nan-metrics": {"num-examples": 14, "extra": float("nan")},
}
"""Metrics instead of the true ones."""
OWN_KEYS = "own-keys"
"""Reports a metric that no other device reports: three Sybils have three layouts."""
FILES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda blob: blob[: len(blob) // 2],
    "long-header": lambda blob: (2**62).to_bytes(8, "little") + blob[8:],
    "garbage-file": lambda blob: random.Random(1).randbytes(len(blob)),  # noqa: S311  # noise
    "empty-file": lambda blob: blob[:0],
}
"""Changes of the update's file, announced with the changed file's digest."""
LIE = -1e9
"""The loss that a lying evaluation reports."""
CLAIMS = ("wrong-digest", "large-claim", "no-upload", "overwritten")
"""The file is not what the reply announces."""
REPLIES = ("foreign-run", "foreign-phase", "made-up-code", "silent")
FUZZED_FILE, FUZZED_REPLY = "fuzzed-file", "fuzzed-reply"
SYBILS = ("huge", "huge-weight", "odd-metrics", OWN_KEYS, "lying-evaluation", FUZZED_FILE)
"""What Sybils do in league."""
BEHAVIOURS = (
    *sorted(HARMLESS - {HONEST}),
    *SPOILED,
    *METRICS,
    *FILES,
    *CLAIMS,
    *REPLIES,
    "wrong-name",
    OWN_KEYS,
    FUZZED_FILE,
)
COPIES = {"duplicate": 3, "flood": 60}
"""How often a reply is published, where it is not once."""
GARBAGE_REPLIES = (
    b"",
    b"\x00" * 100,
    b"{" * 3000,
    b'{"key": "", "body": ""}',
    b'{"key": {"a": 1}, "body": []}',
)
GARBAGE_HEARTBEATS = (b"", b"\xff" * 500, b'{"body": 7}', b'{"body": "{}"}', b"[" * 2000)


@dataclass(frozen=True)
class Update:
    """An update as a behaviour announces and uploads it."""

    ref: ObjectRef
    """What the reply announces."""
    uploads: tuple[bytes, ...]
    """What is uploaded, one after the other."""


def update_of(behaviour: str, weights: Weights, partition: int, seed: str = "") -> Update:
    """The update of honestly trained weights, as a behaviour spoils it; ``seed`` decides how, where
    there are many ways.
    """
    weights = SPOILED[behaviour](weights) if behaviour in SPOILED else weights
    metrics = METRICS.get(behaviour, {"num-examples": examples(partition)})
    if behaviour == OWN_KEYS:
        metrics = {**metrics, f"key-{partition}": 1.0}
    name = "v" if behaviour == "wrong-name" else "w"
    blob = encode_records(Records(arrays={"arrays": {name: weights}}, metrics={"metrics": metrics}))
    if behaviour in FILES:
        blob = FILES[behaviour](blob)
    if behaviour == FUZZED_FILE:
        blob = fuzzed_file(blob, random.Random(seed))  # noqa: S311  # chance
    ref = ObjectRef(digest(blob), len(blob))
    if behaviour == "wrong-digest":
        ref = ObjectRef("0" * 64, len(blob))
    if behaviour == "large-claim":
        ref = ObjectRef(ref.digest, 2 * 2**30)
    if behaviour == "no-upload":
        return Update(ref, ())
    if behaviour == "overwritten":
        return Update(ref, (blob, b"x" * len(blob)))
    return Update(ref, (blob,))


def reply_of(behaviour: str, reply: Reply) -> Reply:
    """A reply to a training command, as a behaviour changes it."""
    replace = msgspec.structs.replace
    if behaviour == "foreign-run":
        return replace(reply, run="run-of-another")
    if behaviour == "foreign-phase":
        return replace(reply, phase="00009-train-0009-00000000")
    if behaviour == "made-up-code":
        return replace(reply, status="error", code="i-made-this-up", reason="x" * 900, update=None)
    return reply


def payloads_of(
    behaviour: str, command: Command, reply: Reply, earlier: list[bytes]
) -> list[bytes]:
    """What a behaviour publishes on the reply topic, in order.

    ``earlier``: payloads that the device has published before; the honest one is added to it.
    """
    changed = reply_of(behaviour, reply) if command.kind == "train" else reply
    payload = seal(changed, command.reply_key)
    earlier.append(payload)
    payloads = [payload] * COPIES.get(behaviour, 1)
    if behaviour == "other-key":
        # The key of another cohort: its proxy must not take the reply.
        payloads.insert(0, seal(reply, command.reply_key.replace("c0000", "c0001")))
    if behaviour == "reply-garbage":
        payloads[:0] = GARBAGE_REPLIES
    if behaviour == FUZZED_REPLY:
        dice = random.Random(command.message_id)  # noqa: S311  # chance, not a secret
        payloads[:0] = fuzzed_replies(command, payload, dice)
    if behaviour == "replay":
        payloads += random.sample(earlier, len(earlier))
    return payloads
