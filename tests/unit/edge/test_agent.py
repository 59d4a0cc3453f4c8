"""The agent: each command is answered once, with a result or a reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes.keys import Key, signed, trust
from fakes.objects import FileObjects
from fakes.transport import MemoryTransport
from fakes.workers import InstantWorkers
from support.paths import APPS

from edge.agent.agent import Agent
from edge.agent.heartbeat import last_will
from edge.config import ConfigError, DeviceConfig, load_config
from edge.protocol.messages import (
    Claim,
    Command,
    Envelope,
    Heartbeat,
    ObjectRef,
    Reply,
    decode,
    encode,
)
from edge.protocol.records import (
    Records,
    decode_records,
    decode_skeleton,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.training.app_bundle import load_app
from edge.training.worker import WorkerJob, WorkerResult
from edge.training.worker_process import WorkerProcess
from pipelines.local.fleet import install


class Device:
    """An agent on fakes, and what a test needs to talk to it."""

    def __init__(self, folder: Path, workers) -> None:
        self.config = DeviceConfig(
            fleet="f",
            device="d0",
            endpoint="127.0.0.1",
            certificate="c",
            private_key="k",
            ca="a",
            home=str(folder),
            heartbeat_seconds=0.05,
            node_config={"partition-id": 0, "num-partitions": 3},
        )
        self.config.cache_dir.mkdir(parents=True, exist_ok=True)
        self.app = load_app(APPS / "digits")
        install(self.app, self.config.apps_dir)
        trust(self.config.trust_file)
        self.transport, self.objects = MemoryTransport(), FileObjects(self.config.cache_dir)
        self.agent = Agent(self.config, self.transport, self.objects, workers)

    def command(self, message_id: str = "m1", **changes: object) -> Command:
        fields = {
            "run": "run-1",
            "phase": "00001-train-0001",
            "server_round": 1,
            "kind": "train",
            "message_id": message_id,
            "reply_key": "key",
            "app": self.app.digest(),
            "seconds": 60.0,
            "flower_run_id": 7,
            "node_id": 8,
            "upload_url": "up",
            "run_config": "{}",
            "content": encode_skeleton(
                Records(configs={"config": {"server-round": 1}}, order=("arrays", "config"))
            ),
        }
        return signed(Command(**{**fields, **changes}))

    def deliver(self, payload: bytes, topic: str = "fl/f/d0/command") -> None:
        assert self.transport.handler is not None
        self.transport.handler(topic, payload)

    async def replies(self, count: int) -> list[Reply]:
        payloads = await self.transport.until(count, "/reply")
        return [
            decode(msgspec.json.decode(payload, type=Envelope).body, Reply) for payload in payloads
        ]


def with_device(
    folder: Path, workers, test: Callable[[Device], Awaitable[None]], kind: type[Device] = Device
) -> Device:
    async def main() -> Device:
        device = kind(folder, workers)
        task = asyncio.ensure_future(device.agent.run())
        await asyncio.sleep(0.02)
        try:
            await test(device)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return device

    return asyncio.run(main())


def instant(**fields: object) -> InstantWorkers:
    return InstantWorkers(
        lambda job: WorkerResult(
            **{
                "ok": True,
                "content": encode_skeleton(Records(metrics={"m": {"loss": 1.0}})),
                **fields,
            }
        )
    )


def test_heartbeats_say_what_the_device_can_run(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        beats = await device.transport.until(3, "/heartbeat")
        beat = decode(msgspec.json.decode(beats[0], type=Envelope).body, Heartbeat)
        assert (beat.state, beat.apps) == ("idle", [device.app.digest()])

    device = with_device(tmp_path, instant(), test)
    assert device.transport.published[-1] == last_will(device.config), "a device that stops says so"
    assert device.transport.closed


def test_a_command_is_run_and_answered(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(encode(device.command(run_config='{"learning-rate": 0.25}')))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.message_id) == ("ok", "m1")
        assert decode_skeleton(reply.content).metrics == {"m": {"loss": 1.0}}

    with_device(tmp_path, workers, test)
    assert workers.jobs[0].run_config["learning-rate"] == 0.25, (
        "the run's settings override the app's"
    )
    assert workers.jobs[0].run_config["local-steps"] == 30
    assert workers.jobs[0].node_config == {"partition-id": 0, "num-partitions": 3}


def test_a_repeated_command_gets_the_same_answer_and_trains_nothing_twice(tmp_path: Path) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        for _ in range(3):
            device.deliver(encode(device.command()))
        replies = await device.replies(3)
        assert replies[0] == replies[1] == replies[2]

    with_device(tmp_path, workers, test)
    assert len(workers.jobs) == 1


def test_a_large_command_is_fetched_by_its_claim(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        body = msgspec.json.encode(device.command(upload_url="u" * 5000))
        device.objects.data["claim"] = body
        device.deliver(encode(Claim(ObjectRef(digest(body), len(body), "claim"), 60.0)))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"app": "b" * 64}, "app-missing"),
        ({"seconds": 0.0}, "deadline"),
        ({"arrays": ObjectRef("c" * 64, 5, "nowhere")}, "download-failed"),
        ({"content": "not json"}, "malformed"),
        ({"run_config": "[]"}, "malformed"),
    ],
)
def test_what_cannot_be_run_is_answered_with_the_reason(
    tmp_path: Path, changes: dict, code: str
) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(encode(device.command(**changes)))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", code)
        assert reply.reason

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


@pytest.mark.parametrize(
    "noise", [b"", b"\xff\xfe", b"{}", b"[" * 10_000, b'{"type":"command"}', b"x" * 100_000]
)
def test_noise_on_the_command_topic_does_no_harm(tmp_path: Path, noise: bytes) -> None:
    async def test(device: Device) -> None:
        device.deliver(noise)
        device.deliver(noise, "$aws/things/d0/shadow/update/delta")
        device.deliver(encode(device.command()))
        assert (await device.replies(1))[0].status == "ok"

    with_device(tmp_path, instant(), test)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ""},
        {"signature": "AAAA"},
        {"signature": "not base64!"},
        {"run": "run-2"},
        {"run_config": '{"learning-rate": 9}'},
        {"kind": "query"},
        {"arrays": ObjectRef("d" * 64, 5, "url")},
        {"content": encode_skeleton(Records(configs={"config": {"lr": 9.0}}))},
    ],
)
def test_a_command_that_its_server_did_not_sign_as_it_is_trains_nothing(
    tmp_path: Path, change: dict
) -> None:
    workers = instant()

    async def test(device: Device) -> None:
        device.deliver(encode(msgspec.structs.replace(device.command(), **change)))
        (reply,) = await device.replies(1)
        assert (reply.status, reply.code) == ("error", "unsigned")

    with_device(tmp_path, workers, test)
    assert workers.jobs == []


def test_a_server_with_another_key_is_not_believed_nor_one_by_a_device_without_keys(
    tmp_path: Path,
) -> None:
    async def other(device: Device) -> None:
        device.deliver(encode(signed(device.command(), key=Key())))
        assert (await device.replies(1))[0].code == "unsigned"

    with_device(tmp_path / "a", instant(), other)

    async def without(device: Device) -> None:
        device.deliver(encode(device.command()))
        assert "no key for commands" in (await device.replies(1))[0].reason

    class Bare(Device):
        def __init__(self, folder: Path, workers) -> None:
            super().__init__(folder, workers)
            self.config.trust_file.unlink()
            self.agent = Agent(self.config, self.transport, self.objects, workers)

    with_device(tmp_path / "b", instant(), without, kind=Bare)


def job_of(folder: Path, **changes: object) -> WorkerJob:
    blob = encode_records(
        Records(
            arrays={"arrays": {"0": np.zeros((64, 10), np.float32), "1": np.zeros(10, np.float32)}}
        )
    )
    (folder / "arrays").write_bytes(blob)
    app = load_app(APPS / "digits")
    fields = {
        "app": str(app.folder),
        "client_app": app.client_app,
        "kind": "train",
        "message_id": "m",
        "flower_run_id": 1,
        "node_id": 2,
        "node_config": {"partition-id": 0, "num-partitions": 3},
        "run_config": app.config,
        "update_path": str(folder / "update"),
        "content": encode_skeleton(Records(configs={"config": {}}, order=("arrays", "config"))),
        "arrays_path": str(folder / "arrays"),
    }
    return WorkerJob(**{**fields, **changes})


def in_worker(*jobs: WorkerJob, seconds: float = 60.0) -> list[WorkerResult]:
    async def main() -> list[WorkerResult]:
        worker = WorkerProcess({"OMP_NUM_THREADS": "1"})
        try:
            return [await worker.run(job, seconds) for job in jobs]
        finally:
            await worker.stop()

    return asyncio.run(main())


def test_a_four_method_client_trains_and_evaluates_in_the_worker_process(tmp_path: Path) -> None:
    trained, evaluated = in_worker(job_of(tmp_path), job_of(tmp_path, kind="evaluate"))
    assert trained.ok, trained.reason
    records = decode_records((tmp_path / "update").read_bytes())
    assert list(records.arrays["arrays"]) == ["0", "1"]
    assert records.metrics["metrics"]["num-examples"] == 479
    assert digest((tmp_path / "update").read_bytes()) == trained.update.digest  # type: ignore[union-attr]
    assert set(decode_skeleton(evaluated.content).metrics["metrics"]) == {
        "num-examples",
        "loss",
        "accuracy",
    }


def test_a_client_speaks_to_an_older_server_in_its_own_records(tmp_path: Path) -> None:
    blob = encode_records(
        Records(
            arrays={
                "fitins.parameters": {
                    "0": np.zeros((64, 10), np.float32),
                    "1": np.zeros(10, np.float32),
                }
            }
        )
    )
    (tmp_path / "old").write_bytes(blob)
    content = encode_skeleton(
        Records(configs={"fitins.config": {}}, order=("fitins.parameters", "fitins.config"))
    )
    (trained,) = in_worker(job_of(tmp_path, content=content, arrays_path=str(tmp_path / "old")))
    assert trained.ok, trained.reason
    answer = decode_records((tmp_path / "update").read_bytes())
    assert set(answer.names()) == {
        "fitres.parameters",
        "fitres.num_examples",
        "fitres.metrics",
        "fitres.status",
    }


def write_app(folder: Path, body: str) -> Path:
    (folder / "bad").mkdir()
    (folder / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nclientapp = "bad.client:app"\n'
    )
    (folder / "bad" / "client.py").write_text(body)
    return folder


RAISES = """
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    {}
"""


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("import missing_module", "app-load", "missing_module"),
        ("app = 3", "app-load", "not a ClientApp"),
        (
            RAISES.format("raise ValueError('no data on this device')"),
            "app-error",
            "no data on this device",
        ),
        (RAISES.format("import os; os._exit(9)"), "worker-died", "code 9"),
        (
            RAISES.format("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
            "worker-died",
            "signal 9",
        ),
        (RAISES.format("raise MemoryError"), "out-of-memory", "memory"),
        (RAISES.format("return 3"), "app-error", "Error"),
    ],
)
def test_whatever_an_app_does_becomes_an_outcome(
    tmp_path: Path, body: str, code: str, text: str
) -> None:
    folder = write_app(tmp_path, body)
    bad = job_of(tmp_path, app=str(folder), client_app="bad.client:app")
    outcome, after = in_worker(bad, job_of(tmp_path))
    assert (outcome.ok, outcome.code) == (False, code)
    assert text in outcome.reason
    assert after.ok, "the next command finds a worker"


def test_an_app_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    folder = write_app(tmp_path, RAISES.format("import time; time.sleep(100)"))
    (outcome,) = in_worker(
        job_of(tmp_path, app=str(folder), client_app="bad.client:app"), seconds=2.0
    )
    assert outcome.code == "deadline"


def test_an_app_may_print_without_harm(tmp_path: Path) -> None:
    folder = write_app(
        tmp_path,
        RAISES.format(
            "print('x' * 100000); import sys; sys.stdout.flush(); raise ValueError('after print')"
        ),
    )
    (outcome,) = in_worker(job_of(tmp_path, app=str(folder), client_app="bad.client:app"))
    assert "after print" in outcome.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "malformed"), ('{"fleet": "a/b"}', "malformed"), ("{}", "malformed")],
)
def test_a_bad_device_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "device.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.json")
