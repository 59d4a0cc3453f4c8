"""A device takes a model only by a signed manifest, after a test on its own data, in one step."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.keys import MODELS, Key, document, trust
from fakes.objects import FileObjects
from test_agent import Device, instant, with_device

from edge.identity.trust import Trust
from edge.protocol.messages import Envelope, Heartbeat, decode
from edge.protocol.records import Records, digest, encode_skeleton
from edge.protocol.signed import Manifest, SignedManifest
from edge.serving.model_store import ModelRefused, ModelStore

GOOD, BAD = b"good weights", b"bad weights"
VALUES = {
    digest(GOOD): 0.9,
    digest(BAD): 0.2,
    digest(b"better"): 0.95,
    digest(b"a little worse"): 0.88,
    digest(b"broken"): float("nan"),
}


def manifest(weights: bytes = GOOD, sequence: int = 1, **changes: Any) -> Manifest:
    return Manifest(
        **{
            "fleet": "f",
            "model_version": f"wind/{sequence}",
            "digest": digest(weights),
            "size": len(weights),
            "app": "a" * 64,
            "metric": "accuracy",
            "goal": "maximize",
            "tolerance": 0.05,
            "sequence": sequence,
            **changes,
        }
    )


class Store:
    """A device's models; tests are looked up by the weights' digest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        trust(folder / "trust.json")
        (folder / "cache").mkdir(exist_ok=True)
        self.objects = FileObjects(folder / "cache")
        self.store = ModelStore(
            folder / "models", self.objects, Trust.of(folder / "trust.json"), "f"
        )

    def install(self, weights: bytes, signed: SignedManifest) -> Any:
        self.objects.data["url"] = weights

        async def test(manifest: Manifest, file: Path) -> float:
            return VALUES[digest(file.read_bytes())]

        return asyncio.run(self.store.install(signed, test))

    @property
    def version(self) -> str:
        active = self.store.active().manifest
        return active.model_version if active else ""


def test_a_model_that_is_better_or_little_worse_is_taken_and_a_bad_one_is_not(
    tmp_path: Path,
) -> None:
    device = Store(tmp_path)
    assert device.install(GOOD, document(manifest(GOOD, 1))).new == 0.9
    done = device.install(b"a little worse", document(manifest(b"a little worse", 2)))
    assert (done.state, done.new, done.old) == ("active", 0.88, 0.9)
    with pytest.raises(
        ModelRefused, match=r"accuracy is 0.2 with the new model and 0.88 with the one in use"
    ) as refused:
        device.install(BAD, document(manifest(BAD, 3)))
    assert refused.value.code == "worse"
    assert device.version == "wind/2", "the model in use stays"
    with pytest.raises(ModelRefused, match="nan"):
        device.install(b"broken", document(manifest(b"broken", 4)))
    low = manifest(b"better", 5, goal="minimize", metric="loss")
    with pytest.raises(ModelRefused, match=r"loss is 0.95"):
        device.install(b"better", document(low))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda s: msgspec.structs.replace(s, manifest=s.manifest.replace("wind/7", "wind/8")),
            "unsigned",
        ),
        (lambda s: msgspec.structs.replace(s, manifest=s.manifest + " "), "unsigned"),
        (lambda s: msgspec.structs.replace(s, signature=""), "unsigned"),
        (lambda s: document(manifest(GOOD, 7), key=Key()), "unsigned"),
        (lambda s: document(manifest(GOOD, 7, fleet="other")), "foreign"),
        (lambda s: document(manifest(GOOD, 2)), "outdated"),
        (lambda s: document(manifest(GOOD, 5)), "outdated"),
        (lambda s: document(manifest(GOOD, 7, digest="e" * 64)), "bad-digest"),
        (
            lambda s: SignedManifest(manifest="{}", signature=MODELS.sign(b"{}"), url="url"),
            "malformed",
        ),
    ],
)
def test_what_is_not_signed_meant_and_new_is_not_run(
    tmp_path: Path, change: Any, code: str
) -> None:
    device = Store(tmp_path)
    device.install(b"better", document(manifest(b"better", 5)))
    with pytest.raises(ModelRefused) as refused:
        device.install(GOOD, change(document(manifest(GOOD, 7))))
    assert refused.value.code == code
    assert device.version == "wind/5"


def test_a_way_back_needs_no_download_and_no_test_and_the_same_manifest_may_come_twice(
    tmp_path: Path,
) -> None:
    device = Store(tmp_path)
    device.install(GOOD, document(manifest(GOOD, 1)))
    device.install(b"better", document(manifest(b"better", 2)))
    fetched = len(device.objects.fetched)
    back = document(manifest(GOOD, 3, model_version="wind/1", forced=True))
    for _ in range(2):
        assert device.install(b"", back).model_version == "wind/1"
    assert len(device.objects.fetched) == fetched
    assert device.install(b"", document(manifest(GOOD, 4, remove=True))).state == "removed"
    assert device.version == ""
    with pytest.raises(ModelRefused, match="has followed 4"):
        device.install(b"better", document(manifest(b"better", 2)))


def test_a_damaged_pointer_is_a_device_without_a_model_and_old_models_go(tmp_path: Path) -> None:
    device = Store(tmp_path)
    for number, weights in enumerate((GOOD, b"better", GOOD, b"better", b"a little worse"), 1):
        device.install(weights, document(manifest(weights, number, tolerance=0.5)))
    for number in range(6, 12):
        VALUES[digest(bytes([number]))] = 0.9
        device.install(bytes([number]), document(manifest(bytes([number]), number)))
    kept = [file for file in (tmp_path / "models").iterdir() if len(file.name) == 64]
    assert len(kept) == 3
    (tmp_path / "models" / "active.json").write_bytes(b'{"manifest"')
    assert device.version == ""


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
        wanted = manifest(GOOD, 1, app=device.app.digest())
        device.deliver(job(document(wanted)), "$aws/things/d0/jobs/start-next/accepted")
        (update,) = await device.transport.until(1, "/jobs/job-1/update")
        said = json.loads(update)
        assert said["status"] == "SUCCEEDED"
        assert said["statusDetails"] == {"state": "active", "model_version": "wind/1", "new": "0.5"}
        (shadow,) = await device.transport.until(1, "/shadow/update")
        assert json.loads(shadow)["state"]["reported"]["model"]["version"] == "wind/1"
        beats = [
            decode(msgspec.json.decode(p, type=Envelope).body, Heartbeat)
            for p in await device.transport.until(3, "/heartbeat")
        ]
        assert beats[-1].model == "wind/1"
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
                job(document(manifest(GOOD, 1, **changes)), number),
                "$aws/things/d0/jobs/start-next/accepted",
            )
            said = json.loads((await device.transport.until(1, f"/jobs/job-{number}/update"))[0])
            assert said["status"] == "FAILED"
            assert text in said["statusDetails"]["reason"]

    with_device(tmp_path, instant(), test)
