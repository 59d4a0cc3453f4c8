"""Malformed and forged input, as a seeded corpus: the same 10,000 each time, each made from
something that is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from edge.protocol.messages import Command, Heartbeat, ObjectRef, Reply
from edge.protocol.records import Records, encode_records

APP = "a" * 64
MODEL = {"w": np.zeros(16, np.float32), "n": np.zeros((), np.int64)}
NASTY_NAMES = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "a+b",
    "a#",
    "#",
    "+",
    "a b",
    "a\x00b",
    "a\nb",
    "é",
    "a" * 64,
    "-a",
    "_a",
    "a.b",
    "%2e%2e",
    "$aws",
    "a:b",
    "*",
    "a\u202eb",
)
NASTY_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    10**40,
    -(2**63),
    1e308,
    "",
    "x" * 5000,
    "../..",
    "\x00",
    [],
    {},
    [[[[]]]],
    {"a": {"b": {"c": 1}}},
    "NaN",
)


def good_reply(message_id: str = "m", **changes: Any) -> Reply:
    return Reply(
        **{
            "run": "run-1",
            "phase": "00001-train-0001-00000000",
            "message_id": message_id,
            "status": "ok",
            "update": ObjectRef("b" * 64, 100),
            **changes,
        }
    )


def good_heartbeat() -> Heartbeat:
    return Heartbeat(
        state="idle",
        boot="b",
        apps=[APP],
        model="m/1",
        power="mains",
        free_memory=5,
        labels={"site": "n"},
        orders=2,
    )


def good_command() -> Command:
    return Command(
        device="d0",
        issued=1,
        run="run-1",
        phase="p",
        server_round=1,
        kind="train",
        message_id="m",
        reply_key="k",
        app=APP,
        seconds=5.0,
        flower_run_id=1,
        node_id=2,
        content="{}",
        arrays=ObjectRef("c" * 64, 10, "http://x"),
        upload_url="http://x",
        run_config="{}",
    )


def good_update(value: float = 1.0) -> bytes:
    arrays = {name: (array + value).astype(array.dtype) for name, array in MODEL.items()}
    return encode_records(
        Records(arrays={"arrays": arrays}, metrics={"metrics": {"loss": 1.0, "num-examples": 10}})
    )


def broken_json(message: msgspec.Struct, dice: random.Random) -> bytes:
    """A message with one thing wrong that no reader may overlook."""
    fields = json.loads(msgspec.json.encode(message))
    text = json.dumps(fields).encode()
    key = dice.choice([name for name in fields if name != "boot"])
    ways: list[Callable[[], bytes]] = [
        lambda: text[: dice.randrange(len(text))],
        lambda: text + dice.choice([b"}", b"x", b"\x00", b"{}"]),
        lambda: dice.randbytes(dice.randrange(1, 300)),
        lambda: b"[" * dice.randrange(1, 3000),
        lambda: b'{"a":' * dice.randrange(1, 1500),
        lambda: json.dumps({**fields, dice.choice(NASTY_NAMES) or "extra": 1}).encode(),
        lambda: json.dumps({**fields, "v": dice.choice([0, 3, "1", None])}).encode(),
        lambda: json.dumps([fields]).encode(),
        lambda: b" " * 20_000 + text,
        lambda: (
            json.dumps({**fields, key: {"deep": [[[1]]]}}).encode()
            if not isinstance(fields[key], dict)
            else b"{}"
        ),
        lambda: text.replace(b'"' + key.encode() + b'"', b'"\xff\xfe"', 1),
    ]
    return dice.choice(ways)()


def forged_reply(message_id: str, dice: random.Random) -> bytes:
    """Well-formed, and not an answer to what was asked, or claiming what cannot be."""
    changes: dict[str, Any] = dice.choice(
        [
            {"run": "run-2"},
            {"phase": "00002-train-0002-00000000"},
            {"message_id": "m-other"},
            {"message_id": ""},
            {"phase": "../../x"},
            {"update": ObjectRef("0" * 64, 100)},
            {"update": ObjectRef("b" * 64, 2 * 2**30)},
            {"update": ObjectRef("b" * 64, 0)},
            {"update": None},
            {"update": None, "content": "{}"},
            {"update": None, "content": "[" * 1000},
            {"status": "error", "code": "x" * 40, "reason": "y" * 1000, "update": None},
            {
                "update": None,
                "content": json.dumps(
                    {"order": [], "arrays": {"a": ["w"]}, "metrics": {}, "configs": {}}
                ),
            },
            {
                "update": None,
                "content": json.dumps(
                    {
                        "order": [],
                        "arrays": {},
                        "metrics": {"m": {"num-examples": 10, "loss": 1.0}},
                        "configs": {},
                    }
                ),
            },
        ]
    )
    return msgspec.json.encode(good_reply(**{"message_id": message_id, **changes}))


def broken_reply(message_id: str, dice: random.Random) -> bytes:
    """A reply whose values are not of their kind."""
    fields = json.loads(msgspec.json.encode(good_reply(message_id)))
    key = dice.choice(["run", "phase", "status", "update", "v"])
    right = fields.get(key)
    fields[key] = dice.choice(
        [
            value
            for value in NASTY_VALUES
            if value != right
            and not (key == "phase" and value == right)
            and not (key == "v" and value is True)
        ]
    )
    if key == "update" and fields[key] is None:
        fields["content"] = "{"
    return json.dumps(fields).encode()


def broken_update(dice: random.Random) -> bytes:
    """A weights file that must not be believed."""
    blob = good_update()
    length = int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8 : 8 + length]), blob[8 + length :]

    def file(changed: Any, raw: bytes = data) -> bytes:
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + raw

    tensor, left_out = header["0"], dice.choice(["0", "1", "__metadata__"])
    ways: list[Callable[[], bytes]] = [
        lambda: blob[: dice.randrange(len(blob))],
        lambda: blob + dice.randbytes(dice.randrange(1, 50)),
        lambda: (
            dice.choice([2**62, 2 * 2**30, 2**64 - 1, length + 1, length - 1, 0]).to_bytes(
                8, "little"
            )
            + blob[8:]
        ),
        lambda: dice.randbytes(dice.randrange(1, 2000)),
        lambda: b"",
        lambda: file(b'{"0": %b, ' % json.dumps(tensor).encode() + json.dumps(header).encode()[1:]),
        lambda: file(
            {
                **header,
                "0": {**tensor, "dtype": dice.choice(["F64", "I8", "F16", "BF16", "X", "", "O"])},
            }
        ),
        lambda: file(
            {
                **header,
                "0": {
                    **tensor,
                    "shape": dice.choice([[17], [4, 5], [-16], [2**31, 2**31], [1] * 100, [16, 2]]),
                },
            }
        ),
        lambda: file(
            {
                **header,
                "0": {
                    **tensor,
                    "data_offsets": dice.choice([[0, 2**40], [9, 73], [-8, 56], [64, 0], [8, 71]]),
                },
            }
        ),
        lambda: file(
            {
                **header,
                "2": {"dtype": "F32", "shape": [2 * 2**28], "data_offsets": [72, 72 + 2**31]},
            }
        ),
        lambda: file({**header, dice.choice(NASTY_NAMES) or "x": tensor}),
        lambda: file({key: value for key, value in header.items() if key != left_out}),
        lambda: file(
            {
                **header,
                "__metadata__": dice.choice(
                    [
                        {},
                        {"records": ""},
                        {"records": "{}"},
                        {"records": 7},
                        [],
                        None,
                        {"records": "[" * 5000},
                    ]
                ),
            }
        ),
        lambda: file(b"[" * dice.randrange(1, 100_000)),
        lambda: file({**header, "0": dice.choice(NASTY_VALUES)}),
        lambda: _poisoned(dice),
    ]
    return dice.choice(ways)()


def _poisoned(dice: random.Random) -> bytes:
    """A file that is whole, and holds what must not count."""
    w, n = np.ones(16, np.float32), np.ones((), np.int64)
    metrics: dict[str, Any] = {"loss": 1.0, "num-examples": 10}
    spoiled = dice.choice(
        ["nan", "inf", "shape", "dtype", "names", "more", "examples", "metrics", "two", "norm"]
    )
    w = {
        "nan": np.full(16, np.nan, np.float32),
        "inf": np.full(16, -np.inf, np.float32),
        "shape": np.ones((4, 4), np.float32),
        "dtype": np.ones(16),
        "norm": np.full(16, 1e30, np.float32),
    }.get(spoiled, w)
    arrays = {"names": {"v": w, "n": n}, "more": {"w": w, "n": n, "z": w}}.get(
        spoiled, {"w": w, "n": n}
    )
    if spoiled == "examples":
        metrics["num-examples"] = dice.choice([0, -1, 1e300, 1e13])
    if spoiled == "metrics":
        metrics = {"loss": dice.choice([float("nan"), float("inf")]), "num-examples": 10}
    groups = {"arrays": arrays} if spoiled != "two" else {"arrays": arrays, "again": arrays}
    return encode_records(Records(arrays=groups, metrics={"metrics": metrics}))


def corpus(count: int, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """(kind, input) pairs; kinds: heartbeat, reply, update, command, name."""
    dice = random.Random(seed)
    for number in range(count):
        kind = ("heartbeat", "reply", "update", "command", "name")[number % 5]
        if kind == "heartbeat":
            yield kind, broken_json(good_heartbeat(), dice)
        elif kind == "reply":
            yield (
                kind,
                dice.choice(
                    [broken_reply, forged_reply, lambda m, d: broken_json(good_reply(m), d)]
                )(f"m-{number}", dice),
            )
        elif kind == "update":
            yield kind, broken_update(dice)
        elif kind == "command":
            yield kind, broken_json(good_command(), dice)
        else:
            base = dice.choice(NASTY_NAMES)
            yield (
                kind,
                base
                if dice.random() < 0.5
                else base + dice.choice(["/", "/../", "\x00", "#", "\n"]) + str(number),
            )
