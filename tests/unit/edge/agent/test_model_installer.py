"""A model comes by an IoT job, is tested by its app, and is reported."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from fakes.devices import Device, instant, with_device
from fakes.keys import a_manifest, document

from edge.protocol.records import (
    Records,
    digest,
    encode_skeleton,
)
from edge.protocol.signed import SignedManifest

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
