"""Made the files beside it, with version 0.4's own code: ``python record.py FOLDER``.

To be run in a checkout of commit c7f0dcb, with its root and its ``tests`` on the path. Kept to say
what the files are; they are never made again.
"""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import msgspec
import numpy as np
from edge.device_config import DeviceConfig  # type: ignore[import-not-found]
from edge.enrolment import Claim as Enrolment  # type: ignore[import-not-found]
from edge.models import ModelStore  # type: ignore[import-not-found]
from edge.spool import Spool  # type: ignore[import-not-found]
from edge.tally import Tally  # type: ignore[import-not-found]
from edge.trust import Trust  # type: ignore[import-not-found]
from keys import document, signed, trust  # type: ignore[import-not-found]

from edge.protocol.messages import (
    Claim,
    Command,
    Heartbeat,
    Moments,
    ObjectRef,
    Reply,
    Served,
    Serving,
    Timing,
    encode,
    seal,
)
from edge.protocol.records import Records, digest, encode_records, encode_skeleton
from edge.protocol.signed import Manifest

APP, OTHER = digest(b"app"), digest(b"other")
VALUES = {"inf": math.inf, "whole": 2**53, "list": [0.5, 1.0], "minus": -1.5e-9}
RECORDS = Records(
    arrays={"arrays": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([7])}},
    metrics={"metrics": {**VALUES, "num-examples": 12}},
    configs={"config": {"lr": 0.1, "name": "é", "raw": b"\x00\xff", "on": True, "many": ["a"]}},
    order=("config", "arrays", "metrics"),
)
WITHOUT = Records(metrics=RECORDS.metrics, configs=RECORDS.configs, order=("config", "metrics"))


def device(folder: Path) -> None:
    """What lies on a device: its configuration, keys, spool, model in use, and statistics."""
    config = DeviceConfig(
        fleet="hall",
        device="press-1",
        endpoint="iot.example",
        port=8883,
        certificate="@HOME@/c.pem",
        private_key="@HOME@/k.pem",
        ca="@HOME@/ca.pem",
        home="@HOME@",
        heartbeat_seconds=5.0,
        node_config={"partition-id": 0},
        labels={"site": "west"},
        provisioning_template="mledgeops",
        rotate_days=30.0,
        worker_env={"OMP_NUM_THREADS": "1"},
    )
    (folder / "device.json").write_bytes(msgspec.json.encode(config))
    claim = Enrolment(
        fleet="hall",
        device="press-1",
        endpoint="iot.example",
        token="secret",
        certificate="@HOME@/c.pem",
        private_key="@HOME@/k.pem",
        ca="@HOME@/ca.pem",
        template="mledgeops",
        home="@HOME@",
    )
    (folder / "claim.json").write_bytes(msgspec.json.encode(claim))
    trust(folder / "trust.json")
    spool = Spool(folder / "spool")
    spool.keep("m-1", seal(reply("m-1"), "run-1#m-1"))
    spool.keep("m-2", seal(reply("m-2"), "run-1#m-2"))
    spool.sent("m-1")
    asyncio.run(model(folder))
    tally = Tally(folder / "serving", 3)
    tally.observe({"wind": np.array([1.0, 2.0, 3.0])}, 3, np.array([0.5, -0.5, 0.0]))


async def model(folder: Path) -> None:
    """A model is installed by a signed manifest; another manifest waits in a job."""
    weights = encode_records(RECORDS)

    class Objects:
        async def fetch(self, ref: ObjectRef, seconds: float) -> tuple[Path, int]:
            (folder / "download").write_bytes(weights)
            return folder / "download", len(weights)

    async def test(manifest: Manifest, file: Path) -> float:
        return 0.25

    def manifest(number: int) -> Manifest:
        return Manifest(
            fleet="hall",
            model_version=f"wind-farm/{number}",
            digest=digest(weights),
            size=len(weights),
            app=APP,
            metric="rmse",
            goal="minimize",
            tolerance=0.1,
            sequence=number,
        )

    store = ModelStore(
        folder / "models", Objects(), Trust.of(folder / "trust.json"), "hall", lambda: 1.7e9
    )
    await store.install(document(manifest(3)), test)
    (folder / "job.json").write_bytes(msgspec.json.encode(document(manifest(4))))
    (folder / "download").unlink()


def reply(message: str) -> Reply:
    """A small answer, which travels in its message."""
    return Reply(
        run="run-1",
        phase="00001-evaluate-0002-ab",
        message_id=message,
        status="ok",
        content=encode_skeleton(WITHOUT),
        timing=Timing(0.1, 2.5, 0.2),
        bytes_down=1234,
    )


def wire(folder: Path) -> None:
    """What crosses the wire, in both directions."""
    served = Served("wind", Moments(500, 8.0, 2.0), Moments(700, 7.5, 2.5))
    beat = Heartbeat(
        state="idle",
        boot="b-1",
        apps=[APP],
        model="wind-farm/3",
        power="mains",
        free_memory=512,
        labels={"site": "west"},
        since=1.7e9,
        serving=Serving(predictions=1200, errors=1, inputs=[served], residuals=served),
    )
    update = ObjectRef(digest(encode_records(RECORDS)), len(encode_records(RECORDS)))
    phase = {"run": "run-1", "phase": "00001-train-0002-ab", "message_id": "m-3"}
    failed = Reply(**phase, status="error", code="app-error", reason="ValueError: no data")
    command = signed(
        Command(
            **phase,
            server_round=1,
            kind="train",
            reply_key="run-1#m-3",
            app=APP,
            seconds=60.0,
            flower_run_id=5,
            node_id=2**62,
            run_config='{"lr":0.1}',
            content=encode_skeleton(WITHOUT),
            upload_url="https://bucket.example/u",
            arrays=ObjectRef(OTHER, 10, "https://bucket.example/a"),
        )
    )
    said = {
        "heartbeat.json": seal(beat),
        "last-will.json": seal(Heartbeat(state="offline")),
        "reply-content.json": seal(reply("m-2"), "run-1#m-2"),
        "reply-update.json": seal(Reply(**phase, status="ok", update=update), "run-1#m-3"),
        "reply-error.json": seal(failed, "run-1#m-3"),
        "command.json": encode(command),
        "claim.json": encode(Claim(ObjectRef(OTHER, 5000, "https://bucket.example/c"), 60.0)),
        "update.safetensors": encode_records(RECORDS),
        "skeleton.json": encode_skeleton(WITHOUT).encode(),
    }
    for name, data in said.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name, record in (("device", device), ("wire", wire)):
        (root / name).mkdir(parents=True)
        record(root / name)
