"""A manifest that has expired is refused by the cloud's time, whatever the device's clock says."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from fakes.devices import Device, a_command, instant, with_device
from fakes.keys import a_manifest, document, sealed

from edge.agent.cloud_time import CloudTime

NEXT = "$aws/things/d0/jobs/start-next/accepted"
EXPIRES = 1_700_000_000.0


def test_time_only_goes_on_and_seconds_are_told_from_milliseconds() -> None:
    ordered = 5.0
    time = CloudTime(lambda: ordered)
    assert time.passed() == 5.0
    time.answered(1_800_000_000)
    time.answered(1_700_000_000_000)
    assert time.passed() == 1_800_000_000


@pytest.mark.parametrize(
    ("answered", "ordered", "code"),
    [
        (EXPIRES - 60, False, "app-missing"),
        (EXPIRES + 60, False, "outdated"),
        (0, True, "outdated"),
    ],
    ids=["it is still good", "the answer is later", "a signed order was later"],
)
def test_an_agent_learns_the_time_from_answers_and_signed_orders(
    tmp_path: Path, answered: float, ordered: bool, code: str
) -> None:
    manifest = a_manifest(issued=EXPIRES - 100, expires=EXPIRES, app="f" * 64)
    job = {"jobId": "j1", "jobDocument": msgspec.to_builtins(document(manifest))}

    async def test(device: Device) -> None:
        if ordered:
            device.deliver(sealed(a_command()))
            await device.replies(1)
        device.objects.data["url"] = b"weights"
        await device.transport.until(1, "/start-next")
        device.deliver(json.dumps({"execution": job, "timestamp": answered}).encode(), NEXT)
        (update,) = await device.transport.until(1, "/jobs/j1/update")
        assert json.loads(update)["statusDetails"]["code"] == code

    with_device(tmp_path, instant(), test)
