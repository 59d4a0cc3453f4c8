"""Whatever an app does becomes a result with a reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.devices import digits

from edge.protocol.opaque import OpaqueArray
from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.training.worker import INLINE_LIMIT, ClientRunner, WorkerJob

ZEROS = {"0": np.zeros((64, 10), np.float32), "1": np.zeros(10, np.float32)}
RAISES = """
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    {}
"""


@pytest.fixture(autouse=True)
def path_as_before() -> Iterator[None]:
    """An app's folder stays on the path of a worker process; here it must not."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def job_of(folder: Path, arrays: dict | None = None, **changes: object) -> WorkerJob:
    """A job to train the digits app on one partition of three."""
    (folder / "arrays").write_bytes(encode_records(Records(arrays=arrays or {"arrays": ZEROS})))
    fields = {
        "app": str(digits().folder),
        "client_app": digits().client_app,
        "kind": "train",
        "message_id": "m",
        "flower_run_id": 1,
        "node_id": 2,
        "node_config": {"partition-id": 0, "num-partitions": 3},
        "run_config": digits().config,
        "update_path": str(folder / "update"),
        "content": encode_skeleton(Records(configs={"config": {}}, order=("arrays", "config"))),
        "arrays_path": str(folder / "arrays"),
    }
    return WorkerJob(**{**fields, **changes})


def job_with(folder: Path, body: str, **changes: object) -> WorkerJob:
    """A job of an app with this module."""
    (folder / "bad").mkdir(parents=True, exist_ok=True)
    (folder / "bad" / "client.py").write_text(body)
    return job_of(folder, app=str(folder), client_app="bad.client:app", **changes)


def test_a_four_method_client_trains_and_evaluates(tmp_path: Path) -> None:
    runner = ClientRunner()
    trained = runner.run(job_of(tmp_path))
    assert trained.ok, trained.reason
    update = (tmp_path / "update").read_bytes()
    assert trained.update is not None
    assert (trained.update.digest, trained.update.size) == (digest(update), len(update))
    records = decode_records(update)
    assert list(records.arrays["arrays"]) == ["0", "1"]
    assert records.metrics["metrics"]["num-examples"] == 479
    evaluated = runner.run(job_of(tmp_path, kind="evaluate"))
    metrics = decode_skeleton(evaluated.content).metrics["metrics"]
    assert set(metrics) == {"num-examples", "loss", "accuracy"}


def test_a_client_speaks_to_an_older_server_in_its_own_records(tmp_path: Path) -> None:
    content = encode_skeleton(
        Records(configs={"fitins.config": {}}, order=("fitins.parameters", "fitins.config"))
    )
    job = job_of(tmp_path, {"fitins.parameters": ZEROS}, content=content)
    trained = ClientRunner().run(job)
    assert trained.ok, trained.reason
    answer = decode_records((tmp_path / "update").read_bytes())
    assert set(answer.names()) == {
        "fitres.parameters",
        "fitres.num_examples",
        "fitres.metrics",
        "fitres.status",
    }


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("import missing_module", "app-load", "missing_module"),
        ("app = 3", "app-load", "not a ClientApp"),
        (RAISES.format("raise ValueError('no data here')"), "app-error", "no data here"),
        (RAISES.format("raise ValueError('x' * 10_000)"), "app-error", "xxx"),
        (RAISES.format("raise MemoryError"), "out-of-memory", "memory"),
        (RAISES.format("return 3"), "app-error", "Error"),
    ],
)
def test_whatever_an_app_does_becomes_a_result(
    tmp_path: Path, body: str, code: str, text: str
) -> None:
    result = ClientRunner().run(job_with(tmp_path, body))
    assert (result.ok, result.code) == (False, code)
    assert text in result.reason
    assert len(result.reason) < 1000


def test_an_exception_names_the_apps_own_lines_and_no_value_of_a_variable(tmp_path: Path) -> None:
    body = RAISES.format("secret = 'patient 7'; import json; json.loads('{{')")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data.py").write_text("def load(text):\n    return {}[len(text)]\n")
    helped = RAISES.format("from bad.data import load; load('patient 7')")
    inner = ClientRunner().run(job_with(tmp_path, helped)).reason
    line = 1 + next(at for at, text in enumerate(helped.splitlines()) if "load('p" in text)
    assert inner == f"KeyError: 9 (bad/data.py:2 in load, bad/client.py:{line} in train)"
    outer = ClientRunner().run(job_with(tmp_path / "two", body)).reason
    assert outer.startswith("JSONDecodeError: Expecting property name")
    assert outer.endswith(f"(bad/client.py:{line} in train)"), "no line of the library's"
    assert "patient" not in inner + outer


def test_an_apps_lines_fit_into_a_reply_whatever_it_raises(tmp_path: Path) -> None:
    deep = f"def {'f' * 90}(n):\n    return {'f' * 90}(n - 1) if n else 1 / 0\n"
    (tmp_path / "bad" / ("d" * 80)).mkdir(parents=True)
    (tmp_path / "bad" / ("d" * 80) / "e.py").write_text(deep)
    call = f"from bad.{'d' * 80}.e import {'f' * 90} as f; f(30)"
    reason = ClientRunner().run(job_with(tmp_path, RAISES.format(call))).reason
    assert reason.startswith("ZeroDivisionError: division by zero (...d")
    assert reason.count("d/e.py:2 in ffff") == 3
    long = RAISES.format("raise ValueError('x' * 10_000)")
    reason = ClientRunner().run(job_with(tmp_path / "two", long)).reason
    assert "x... (bad/client.py:" in reason
    assert len(reason) <= 400


@pytest.mark.parametrize(
    ("field", "value"), [("content", "not json"), ("arrays_path", "/nowhere/arrays")]
)
def test_a_job_that_cannot_be_read_is_a_failure(tmp_path: Path, field: str, value: str) -> None:
    assert not ClientRunner().run(job_of(tmp_path, **{field: value})).ok


def test_an_update_that_cannot_be_stored_is_a_failure(tmp_path: Path) -> None:
    result = ClientRunner().run(job_of(tmp_path, update_path=str(tmp_path / "none" / "update")))
    assert (result.ok, result.code) == (False, "device-error")


ANSWERS = """
from flwr.app import MetricRecord, RecordDict, Message
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    context.state["seen"] = MetricRecord({{"count": len(context.state) + {step}}})
    metrics = MetricRecord({{f"m{{i}}": 0.5 for i in range({count})}})
    content = RecordDict({{"metrics": metrics, **context.state}})
    return Message(content=content, reply_to=message)
"""


def test_a_large_answer_without_arrays_is_an_object_too(tmp_path: Path) -> None:
    small = ClientRunner().run(job_with(tmp_path / "a", ANSWERS.format(step=1, count=3)))
    assert (small.ok, small.update, len(small.content) < INLINE_LIMIT) == (True, None, True)
    large = ClientRunner().run(job_with(tmp_path / "b", ANSWERS.format(step=1, count=300)))
    assert (large.ok, large.content) == (True, "")
    assert len(decode_records((tmp_path / "b" / "update").read_bytes()).metrics["metrics"]) == 300


def test_a_runs_state_stays_and_another_run_starts_without(tmp_path: Path) -> None:
    runner, job = ClientRunner(), job_with(tmp_path, ANSWERS.format(step=1, count=1))
    counts = []
    for run in (1, 1, 2):
        job.flower_run_id = run
        counts.append(decode_skeleton(runner.run(job).content).metrics["seen"]["count"])
    assert counts == [1, 2, 1]


def test_a_runs_state_survives_the_worker_and_follows_the_device(tmp_path: Path) -> None:
    """Two workers serve a device in turns, as in a pool; a third starts after a reboot."""
    first, second = ClientRunner(), ClientRunner()
    job = job_with(tmp_path, ANSWERS.format(step=1, count=1), state_path=str(tmp_path / "s" / "x"))
    counts = [
        decode_skeleton(runner.run(job).content).metrics["seen"]["count"]
        for runner in (first, second, first, ClientRunner())
    ]
    assert counts == [1, 2, 2, 2], "the app counts the records of its state"
    job.state_path = str(tmp_path / "s" / "of another run")
    assert decode_skeleton(first.run(job).content).metrics["seen"]["count"] == 1


def test_the_next_version_of_an_app_is_the_code_that_runs(tmp_path: Path) -> None:
    """Both versions have the same module names, and the process stays."""
    runner = ClientRunner()
    counts = []
    for folder, step in (("a", 1), ("b", 10), ("a", 1)):
        job = job_with(tmp_path / folder, ANSWERS.format(step=step, count=1), flower_run_id=step)
        counts.append(decode_skeleton(runner.run(job).content).metrics["seen"]["count"])
    assert counts == [1, 10, 1]


REPLIES = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    {}
    return Message(content=RecordDict({{"r": record}}), reply_to=message)
"""


def replied(folder: Path, record: str) -> Records:
    folder = folder / digest(record.encode())  # a module of one file is imported once
    result = ClientRunner().run(job_with(folder, REPLIES.format(f"record = {record}")))
    assert result.ok, result.reason
    if result.update is None:
        return decode_skeleton(result.content)
    return decode_records((folder / "update").read_bytes())


def test_numpy_scalars_and_an_arrays_own_format_are_sent(tmp_path: Path) -> None:
    """Flower takes them: a float of NumPy's is a float."""
    metrics = replied(tmp_path, "MetricRecord({'loss': np.float64(0.5)})").metrics["r"]
    assert (metrics, type(metrics["loss"])) == ({"loss": 0.5}, float)
    array = "Array('int4', (3,), 'my.packed', bytes(2))"
    (found,) = replied(tmp_path, f"ArrayRecord({{'q': {array}}})").arrays["r"].values()
    assert isinstance(found, OpaqueArray)
    assert (found.form.stype, found.tobytes()) == ("my.packed", bytes(2))
    complex_array = replied(tmp_path, "ArrayRecord([np.array([1j])])").arrays["r"]["0"]
    assert isinstance(complex_array, OpaqueArray)
    large = replied(tmp_path, "ConfigRecord({'weights': bytes(20_000_000)})").configs["r"]
    assert large["weights"] == bytes(20_000_000)


@pytest.mark.parametrize(
    ("value", "code", "named"), [("2**70", "type", "'odd'"), ("1j", "app-error", "complex")]
)
def test_a_value_that_cannot_be_sent_is_named(
    tmp_path: Path, value: str, code: str, named: str
) -> None:
    """Flower's own record refuses some, and its wire the others."""
    body = REPLIES.format(f"record = MetricRecord({{'odd': {value}}})")
    result = ClientRunner().run(job_with(tmp_path, body))
    assert (result.ok, result.code) == (False, code)
    assert named in result.reason


def test_an_app_sees_the_group_of_its_message(tmp_path: Path) -> None:
    body = REPLIES.format("record = ConfigRecord({'group': message.metadata.group_id})")
    result = ClientRunner().run(job_with(tmp_path, body, group_id="round 3"))
    assert decode_skeleton(result.content).configs["r"] == {"group": "round 3"}
