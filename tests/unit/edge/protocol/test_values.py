"""Whatever Flower's records take, arrives; anything else is refused by its name."""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

from edge.protocol.errors import ProtocolError
from edge.protocol.records import (
    Records,
    bounds_of,
    decode_records,
    decode_skeleton,
    encode_records,
    encode_skeleton,
)
from edge.protocol.values import LONG_BYTES, LONG_LIST


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def there_and_back(configs: dict[str, Any], metrics: dict[str, Any]) -> Records:
    return decode_skeleton(encode_skeleton(Records(configs={"c": configs}, metrics={"m": metrics})))


def test_numpy_scalars_and_subclasses_arrive_as_the_plain_type() -> None:
    metrics = {
        "loss": np.float64(0.5),
        "nan": np.float64("nan"),
        "level": Level.HIGH,
        "losses": [np.float64(0.5), 1.5],
        "large": 2**64 - 1,
    }
    configs = {
        "name": np.str_("x"),
        "raw": np.bytes_(b"y"),
        "colour": Colour.RED,
        "flag": True,
        "mixed": [1, True],
        "none": [],
    }
    found = there_and_back(configs, metrics)
    assert repr(found.metrics["m"]) == repr(
        {"loss": 0.5, "nan": float("nan"), "level": 3, "losses": [0.5, 1.5], "large": 2**64 - 1}
    )
    assert repr(found.configs["c"]) == repr(
        {"name": "x", "raw": b"y", "colour": "red", "flag": True, "mixed": [1, 1], "none": []}
    )


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (1 + 2j, "complex"),
        (np.complex64(1), "complex64"),
        (np.longdouble(1), "longdouble"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
        ((1, 2), "tuple"),
        (2**64, "64 bits"),
        ([1, "x"], "int, str"),
        (-(2**63) - 1, "64 bits"),
        ([2**70], "64 bits"),
        ([1, 2**70], "64 bits"),
    ],
)
def test_other_types_are_refused_by_key_and_type(value: Any, named: str) -> None:
    with pytest.raises(ProtocolError, match=f"'odd' is an? .*{named}") as refused:
        encode_skeleton(Records(metrics={"m": {"odd": value}}))
    assert refused.value.code == "type"


LONG = {
    "weights": b"\x00\xff" * LONG_BYTES,
    "text": "\N{SNOWMAN}" * LONG_BYTES,
    "floats": [0.5, float("nan")] * LONG_LIST,
    "ints": [1, -1] * LONG_LIST,
    "flags": [True, False] * LONG_LIST,
    "ids": [2**64 - 1] * LONG_LIST,
    "parts": [b"a" * LONG_BYTES, b"b"],
}


def test_long_values_travel_beside_the_header() -> None:
    """A reply with 20 MB of settings is no longer than they are, and within a model's bounds."""
    arrays = {"arrays": {"w": np.zeros(2, np.float32)}}
    blob = encode_records(Records(arrays=arrays, configs={"c": LONG}, metrics={"m": {"n": 1}}))
    assert int.from_bytes(blob[:8], "little") < 5000
    found = decode_records(blob, bounds_of(["w"]))
    assert repr(found.configs["c"]) == repr(LONG)
    assert found.metrics == {"m": {"n": 1}}


@pytest.mark.parametrize(
    "value",
    [{"$bytes": 0}, {"$text": 0}, {"$list": 0}, {"$list": True}, {"$list": -1}, {"$list": "0"}],
)
def test_a_long_value_without_its_tensor_is_refused(value: object) -> None:
    text = json.dumps({"order": [], "arrays": {}, "metrics": {}, "configs": {"c": {"x": value}}})
    with pytest.raises(ProtocolError):
        decode_skeleton(text)


def forged(metrics: object, configs: object, array: np.ndarray) -> bytes:
    """A weights file whose only tensor belongs to no array."""
    skeleton = {"order": [], "arrays": {}, "metrics": metrics, "configs": configs}
    head = json.dumps(
        {
            "__metadata__": {"records": json.dumps(skeleton)},
            "0": {"dtype": "F32", "shape": list(array.shape), "data_offsets": [0, array.nbytes]},
        }
    ).encode()
    return len(head).to_bytes(8, "little") + head + array.tobytes()


@pytest.mark.parametrize(
    ("metrics", "configs"),
    [
        ({}, {}),
        ({"m": {"x": {"$bytes": 0}}}, {}),
        ({}, {"c": {"x": {"$bytes": 0}}}),
        ({}, {"c": {"x": {"$list": 0}, "y": {"$list": 0}}}),
        ({}, {"c": {"x": {"$list": 0}, "y": {"$list": 1}}}),
    ],
)
def test_a_tensor_is_one_value_of_its_type(metrics: object, configs: object) -> None:
    with pytest.raises(ProtocolError):
        decode_records(forged(metrics, configs, np.zeros(3, np.float32)))
    with pytest.raises(ProtocolError):
        decode_records(
            forged({"m": {"x": {"$list": 0}}}, {}, np.zeros((2, 2), np.float32)),
        )


def test_long_lists_of_large_integers_may_hold_zero_and_nothing_below() -> None:
    large = [0, 2**64 - 1] * LONG_LIST
    blob = encode_records(Records(configs={"c": {"ids": large}}))
    assert decode_records(blob).configs["c"]["ids"] == large
    with pytest.raises(ProtocolError, match="64 bits cannot hold"):
        encode_records(Records(configs={"c": {"ids": [-1, *large]}}))


def test_a_tensor_that_no_value_names_is_refused_whatever_its_number() -> None:
    blob = forged({}, {}, np.zeros(3, np.float32)).replace(b', "0": {', b', "7": {')
    with pytest.raises(ProtocolError, match="not described"):
        decode_records(blob)


def test_only_long_values_are_tensors() -> None:
    short = {"text": "a" * (LONG_BYTES - 1), "raw": b"a" * 100, "list": [0.5] * (LONG_LIST - 1)}
    assert load_safetensors(encode_records(Records(configs={"c": short}))) == {}
    long = {"text": "a" * LONG_BYTES, "list": [0.5] * LONG_LIST}
    assert len(load_safetensors(encode_records(Records(configs={"c": long})))) == 2
    assert (LONG_BYTES, LONG_LIST) == (65_536, 8_192), "what devices of 0.5 send"
