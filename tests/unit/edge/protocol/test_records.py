"""Records: what goes in comes out, and nothing malformed gets in."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
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
from edge.protocol.tensors import parts_of

DTYPES = [
    np.float64,
    np.float32,
    np.float16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint64,
    np.uint32,
    np.uint16,
    np.uint8,
    np.bool_,
]


ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats()


VALUES = NUMBERS | st.lists(st.floats(), max_size=4) | st.lists(st.integers(-100, 100), max_size=4)


PLAIN = (
    NUMBERS
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.booleans()
    | st.lists(st.text(max_size=5), max_size=3)
)


GROUP = st.text(min_size=1, max_size=12)


@st.composite
def records(draw: st.DrawFn, kinds: str = "amc") -> Records:
    names = draw(st.lists(GROUP, unique=True, max_size=5))
    chosen = [draw(st.sampled_from(kinds)) for _ in names]
    contents = {
        "a": st.dictionaries(GROUP, ARRAYS, max_size=4),
        "m": st.dictionaries(GROUP, VALUES, max_size=4),
        "c": st.dictionaries(GROUP, PLAIN, max_size=4),
    }
    made = {
        kind: {n: draw(contents[kind]) for n, k in zip(names, chosen, strict=True) if k == kind}
        for kind in "amc"
    }
    return Records(arrays=made["a"], metrics=made["m"], configs=made["c"], order=tuple(names))


def same(a: Records, b: Records) -> None:
    assert a.names() == b.names()
    assert repr(a.metrics) == repr(b.metrics)  # repr: NaN is not equal to itself
    assert repr(a.configs) == repr(b.configs)
    assert {n: list(g) for n, g in a.arrays.items()} == {n: list(g) for n, g in b.arrays.items()}
    for name, group in a.arrays.items():
        for key, array in group.items():
            other = b.arrays[name][key]
            assert (array.dtype, array.shape, array.tobytes()) == (
                other.dtype,
                other.shape,
                other.tobytes(),
            )


@given(records())
def test_records_survive_the_wire_as_an_ordinary_safetensors_file(original: Records) -> None:
    blob = encode_records(original)
    same(original, decode_records(blob))
    assert len(load_safetensors(blob)) == sum(len(group) for group in original.arrays.values())


@given(records(kinds="mc"))
def test_small_answers_survive_as_text(original: Records) -> None:
    same(original, decode_skeleton(encode_skeleton(original)))


def test_big_endian_arrays_arrive_as_their_values() -> None:
    array = np.arange(5, dtype=">f4")
    assert decode_records(encode_records(Records(arrays={"a": {"x": array}}))).arrays["a"][
        "x"
    ].tolist() == [0, 1, 2, 3, 4]


def test_objects_are_refused() -> None:
    with pytest.raises(ProtocolError, match="cannot be sent"):
        encode_records(Records(arrays={"a": {"x": np.array([object()])}}))


BLOB = encode_records(
    Records(
        arrays={"arrays": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}},
        metrics={"m": {"loss": 1.5}},
    )
)


@given(st.data())
def test_a_damaged_weights_file_is_refused_or_of_the_same_form(data: st.DataObject) -> None:
    blob = bytearray(BLOB)
    for _ in range(data.draw(st.integers(1, 8))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    try:
        found = decode_records(bytes(blob[:cut]))
    except ProtocolError:
        return
    assert sum(a.nbytes for group in found.arrays.values() for a in group.values()) <= len(blob)


def hostile(header: dict | bytes, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


META = {
    "records": json.dumps({"order": ["a"], "arrays": {"a": ["w"]}, "metrics": {}, "configs": {}})
}


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x00" * 7,
        (2**63).to_bytes(8, "little") + b"{}",
        hostile(b"{"),
        hostile(b"[]"),
        hostile({}),
        hostile({"__metadata__": META}),
        hostile(
            {
                "__metadata__": META,
                "0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
            }
        ),
        hostile(
            {"__metadata__": META, "0": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
            b"\0" * 8,
        ),
        hostile(
            {"__metadata__": META, "0": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
            b"\0" * 4,
        ),
        hostile(
            {"__metadata__": META, "0": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
            b"\0" * 8,
        ),
        hostile(
            {"__metadata__": META, "0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 9,
        ),
        hostile(
            {"__metadata__": META, "0": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 4,
        ),
        hostile(
            {"__metadata__": META, "1": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 4,
        ),
        hostile(
            {
                "__metadata__": META,
                "0": {"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 4]},
            },
            b"\0" * 4,
        ),
        hostile(
            {
                "__metadata__": {"records": "{}"},
                "0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            b"\0" * 4,
        ),
        hostile(b'{"a":' * 100_000),
    ],
)
def test_forged_weights_files_are_refused(blob: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_records(blob)


def described(metadata: object = META, **tensors: dict) -> bytes:
    return hostile({"__metadata__": metadata, **tensors})


def empty(*shape: int) -> dict:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    "blob",
    [
        described(**{"0": empty(0, 2**63)}),
        described(**{"0": empty(0, 2**62, 2**62)}),
        described(**{"0": empty(2**200, 0)}),
        described({"records": '{"order": ["\ud800"]}'}, **{"0": empty(0)}),
        described({"records": "\ud800"}),
        hostile(b'{"__metadata__": {"records": "\\ud800"}}'),
        hostile(b'{"0": NaN}'),
        hostile(b'{"0": Infinity, "__metadata__": {}}'),
        hostile(b'{"0": ' + b"9" * 5000 + b"}"),
        hostile(b'{"\xff": 1}'),
        hostile(b'{"0": {"a": 1, "a": 2}}'),
    ],
)
def test_nothing_but_a_refusal_is_raised(blob: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_records(blob)


@pytest.mark.parametrize(
    "text",
    ["\ud800", '{"order": ["\ud800"]}', b"\xff", "[" * 100_000, '{"a":' * 100_000, "9" * 9999],
)
def test_a_skeleton_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_skeleton(text)


def many_empty(count: int) -> bytes:
    names = [str(number) for number in range(count)]
    skeleton = {"order": ["a"], "arrays": {"a": names}, "metrics": {}, "configs": {}}
    return described({"records": json.dumps(skeleton)}, **{name: empty(0) for name in names})


def test_more_tensors_than_the_model_has_are_refused_before_they_cost_anything() -> None:
    blob = many_empty(60_000)
    assert len(blob) > 3 * 2**20
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ProtocolError):
        decode_records(blob, bounds_of(["w", "n"]))
    took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (took < 0.1, peak < 2**20) == (True, True), (took, peak)


def test_a_few_tensors_too_many_are_refused() -> None:
    assert list(decode_records(many_empty(3), bounds_of("abc")).arrays["a"]) == ["0", "1", "2"]
    with pytest.raises(ProtocolError, match="tensors"):
        decode_records(many_empty(70), bounds_of("abc"))


def with_a_list(numbers: np.ndarray) -> bytes:
    value = {"m": {"x": {"$list": 0}}}
    skeleton = {"order": ["m"], "arrays": {}, "metrics": value, "configs": {}}
    return b"".join(parts_of({"0": numbers}, json.dumps(skeleton)))


@pytest.mark.parametrize(
    ("dtype", "code"), [("<f8", "too-large"), ("<f2", "too-large"), ("u1", "malformed")]
)
def test_a_long_list_costs_no_more_than_metrics_may(dtype: str, code: str) -> None:
    blob = with_a_list(np.ones(2_000_000, dtype))
    tracemalloc.start()
    with pytest.raises(ProtocolError) as refused:
        decode_records(blob, bounds_of(["w"]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (refused.value.code, peak < 2**20) == (code, True)
    short = decode_records(with_a_list(np.ones(100_000)), bounds_of(["w"]))
    assert short.metrics["m"]["x"] == [1.0] * 100_000


def test_every_model_fits_its_own_bounds() -> None:
    names = ['"\\' * 300, "\x01" * 200, "名" * 200, *map(str, range(500))]
    metrics = {"m": {f"metric-{number}": [0.5] * 10 for number in range(1000)}}
    model = Records(arrays={"a": {name: np.zeros((1,) * 20) for name in names}}, metrics=metrics)
    assert list(decode_records(encode_records(model), bounds_of(names)).arrays["a"]) == names


def test_the_names_of_many_groups_cost_no_more_than_they_are() -> None:
    groups = {str(number): {} for number in range(20_000)}
    began = time.process_time()
    assert len(Records(metrics=groups, order=tuple(reversed(groups))).names()) == 20_000
    assert time.process_time() - began < 1.0


def test_lists_hold_as_many_numbers_as_they_may_also_without_a_model() -> None:
    assert len(decode_records(with_a_list(np.ones(10_000))).metrics["m"]["x"]) == 10_000
    with pytest.raises(ProtocolError, match="may hold 4194304"):
        decode_records(with_a_list(np.ones(2**22 + 1, "<f2")))
    assert decode_records(with_a_list(np.ones(2**17)), bounds_of("w")).metrics["m"]["x"]
    with pytest.raises(ProtocolError, match="may hold 131072"):
        decode_records(with_a_list(np.ones(2**17 + 1)), bounds_of("w"))


@pytest.mark.parametrize("value", ["text", True, {"$bytes": "eA=="}, [True], ["a"]])
def test_metrics_are_numbers_and_configs_may_be_more(value: object) -> None:
    def skeleton(**groups: object) -> str:
        return json.dumps({"order": [], "arrays": {}, "metrics": {}, "configs": {}} | groups)

    assert decode_skeleton(skeleton(configs={"m": {"x": value}})).configs["m"]
    with pytest.raises(ProtocolError, match="not accepted here"):
        decode_skeleton(skeleton(metrics={"m": {"x": value}}))


def test_groups_have_the_apps_order_those_that_it_omits_last() -> None:
    records = Records(
        arrays={"a": {}}, metrics={"m": {}}, configs={"c": {}}, order=("c", "gone", "m", "c")
    )
    assert records.names() == ("c", "m", "a")
