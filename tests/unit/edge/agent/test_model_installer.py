"""A model comes by an IoT job, is tested by its app, and is reported."""

from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path

import msgspec
import pytest
from fakes.devices import Device, digits, instant, with_device
from fakes.keys import a_manifest, document
from fakes.transport import MemoryTransport
from fakes.workers import InstantWorkers

from edge.agent.heartbeat import HeartbeatSender
from edge.agent.model_installer import ModelInstaller
from edge.agent.spool import Outbox, Spool
from edge.identity.trust import Trust
from edge.protocol.messages import Heartbeat, ObjectRef, unseal
from edge.protocol.records import (
    Records,
    digest,
    encode_records,
    encode_skeleton,
)
from edge.protocol.signed import SignedManifest
from edge.serving.model_store import ModelRefused, ModelStore
from edge.training.worker import WorkerJob, WorkerResult

GOOD, BAD = b"good weights", b"bad weights"


def job(signed: SignedManifest | dict, number: int = 1) -> bytes:
    document = signed if isinstance(signed, dict) else msgspec.to_builtins(signed)
    return json.dumps(
        {
            "execution": {"jobId": f"job-{number}", "jobDocument": document, "executionNumber": 1},
            "timestamp": 1,
        }
    ).encode()


def test_an_agent_carries_out_a_job_and_says_so_everywhere(tmp_path: Path) -> None:
    async def test(device: Device) -> None:
        device.objects.data["url"] = GOOD
        await device.transport.until(1, "/jobs/start-next")
        wanted = a_manifest(GOOD, 1, app=device.app.digest())
        device.deliver(job(document(wanted)), "$aws/things/d0/jobs/start-next/accepted")
        (update,) = await device.transport.until(1, "/jobs/job-1/update")
        said = json.loads(update)
        assert said["status"] == "SUCCEEDED"
        assert said["statusDetails"] == {"state": "active", "model_version": "wind/1", "new": "0.5"}
        (shadow,) = await device.transport.until(1, "/shadow/update")
        assert json.loads(shadow)["state"]["reported"]["model"]["version"] == "wind/1"
        assert (await device.heartbeats(3))[-1].model == "wind/1"
        await device.transport.until(2, "/jobs/start-next")
        device.deliver(job({"operation": "rm -rf"}, 2), "$aws/things/d0/jobs/start-next/accepted")
        assert (
            json.loads((await device.transport.until(1, "/jobs/job-2/update"))[0])["status"]
            == "REJECTED"
        )
        await device.transport.until(3, "/jobs/start-next")
        device.deliver(b'{"timestamp": 1}', "$aws/things/d0/jobs/start-next/accepted")
        device.deliver(b"{}", "$aws/things/d0/jobs/notify-next")
        await device.transport.until(4, "/jobs/start-next")

    tested = instant(content=encode_skeleton(Records(metrics={"m": {"accuracy": 0.5}})))
    device = with_device(tmp_path, tested, test)
    assert tested.jobs[0].kind == "evaluate"
    assert (device.config.models_dir / digest(GOOD)).read_bytes() == GOOD


def test_a_model_whose_app_is_not_here_or_does_not_report_the_metric_is_refused(
    tmp_path: Path,
) -> None:
    async def test(device: Device) -> None:
        device.objects.data["url"] = GOOD
        for number, (changes, text) in enumerate(
            (({}, "not installed"), ({"app": device.app.digest()}, "reports no 'accuracy'")), 1
        ):
            await device.transport.until(number, "/jobs/start-next")
            device.deliver(
                job(document(a_manifest(GOOD, 1, **changes)), number),
                "$aws/things/d0/jobs/start-next/accepted",
            )
            said = json.loads((await device.transport.until(1, f"/jobs/job-{number}/update"))[0])
            assert said["status"] == "FAILED"
            assert text in said["statusDetails"]["reason"]

    with_device(tmp_path, instant(), test)


def installer(folder: Path, workers: InstantWorkers) -> tuple[ModelInstaller, MemoryTransport]:
    device, transport = Device(folder, workers), MemoryTransport()
    device.objects.data["url"] = GOOD
    trusted = Trust.of(device.config.trust_file)
    models = ModelStore(device.config.models_dir, device.objects, trusted, "f")
    outbox = Outbox(Spool(folder / "spool"), transport, "fl/f/d0/reply")
    heartbeats = HeartbeatSender(device.config, transport, models, outbox, lambda: False)
    lock = asyncio.Lock()
    return ModelInstaller(device.config, transport, models, workers, heartbeats, lock), transport


def test_a_refusal_is_reported_to_the_shadow_and_raised(tmp_path: Path) -> None:
    async def main() -> None:
        workers = instant(ok=False, code="app-error", reason="no data")
        install, transport = installer(tmp_path, workers)
        wanted = a_manifest(GOOD, app=digits().digest())
        with pytest.raises(ModelRefused, match="no data") as refused:
            await install.install(document(wanted))
        assert refused.value.code == "app-error"
        (topic, payload), *more = transport.published
        assert (topic, more) == ("$aws/things/d0/shadow/update", [])
        reported = json.loads(payload)["state"]["reported"]["model"]
        assert reported == {"state": "failed", "reason": "app-error: no data"}

    asyncio.run(main())


def test_a_removal_is_reported_without_a_version_and_heard_of_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        install, transport = installer(tmp_path, instant())
        done = await install.install(document(a_manifest(GOOD, remove=True)))
        assert done.state == "removed"
        (_, shadow), (topic, beat) = transport.published
        assert json.loads(shadow)["state"]["reported"]["model"]["version"] is None
        assert (topic, unseal(beat, Heartbeat).model) == ("fl/f/d0/heartbeat", "")

    asyncio.run(main())


def a_report(size: int | None = None) -> InstantWorkers:
    """Workers whose report is too long for a result: it comes as a file."""

    def answer(job: WorkerJob) -> WorkerResult:
        metrics = {f"metric-{number}": 0.1 for number in range(300)}
        blob = encode_records(Records(metrics={"m": {"accuracy": 0.5, **metrics}}))
        Path(job.update_path).write_bytes(blob)
        return WorkerResult(ok=True, update=ObjectRef(digest(blob), size or len(blob)))

    return InstantWorkers(answer)


def test_a_report_that_came_as_a_file_is_read(tmp_path: Path) -> None:
    """It ended the agent, at each start again: the job came back until it was answered."""

    async def main() -> None:
        install, _ = installer(tmp_path, a_report())
        done = await install.install(document(a_manifest(GOOD, app=digits().digest())))
        assert done.new == 0.5
        assert not (tmp_path / "cache" / "test.out").exists()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("workers", "code"),
    [
        (a_report(2**30), "too-large"),
        (instant(content=""), "malformed"),
        (InstantWorkers(lambda job: {}[job]), "device-error"),
    ],
)
def test_whatever_the_test_of_a_model_does_it_is_a_refusal_that_the_shadow_tells(
    tmp_path: Path, workers: InstantWorkers, code: str
) -> None:
    async def main() -> None:
        install, transport = installer(tmp_path, workers)
        with pytest.raises(ModelRefused) as refused:
            await install.install(document(a_manifest(GOOD, app=digits().digest())))
        assert refused.value.code == code
        reported = json.loads(transport.published[0][1])["state"]["reported"]["model"]
        assert reported["state"] == "failed"

    asyncio.run(main())


def test_a_disk_that_fills_up_at_the_switch_is_a_refusal_and_the_old_model_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        tested = instant(content=encode_skeleton(Records(metrics={"m": {"accuracy": 0.5}})))
        install, _ = installer(tmp_path, tested)
        await install.install(document(a_manifest(GOOD, 1, app=digits().digest())))

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("edge.serving.model_store.write_atomically", full)
            with pytest.raises(ModelRefused, match="No space") as refused:
                await install.install(document(a_manifest(GOOD, 2, app=digits().digest())))
        assert refused.value.code == "disk-full"
        done = await install.install(document(a_manifest(GOOD, 2, app=digits().digest())))
        assert done.state == "active"

    asyncio.run(main())
