"""What version 0.4 sent and stored is read for ever: recorded with its own code.

``tests/fakes/said_by_0_4`` has what a device sent and kept and what a cloud sent;
``tests/fakes/home_0_4`` has what a cloud stored.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fakes.objects import FileObjects, MemoryObjects
from fakes.trail import MemoryEntries
from support.paths import ROOT
from support.recorded_home import ARCHIVE, FIRST, SECOND

from edge.agent.spool import Spool
from edge.config import load_config, read_struct
from edge.identity.trust import Trust
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import (
    Heartbeat,
    Moments,
    Reply,
    decode,
    decode_heartbeat,
    unseal,
)
from edge.protocol.orders import decode_signed
from edge.protocol.records import decode_records, decode_skeleton, digest
from edge.protocol.signed import Manifest, SignedManifest
from edge.serving.model_store import ModelStore
from edge.serving.statistics import serving
from edge.transports.provisioning import ProvisioningClaim
from fl_runtime.run.devices import decode_row
from fl_runtime.run.records import RoundRecord
from fl_runtime.run.spec import decode_spec
from fl_runtime.server.rounds import checkpoints
from registry.audit import AuditTrail
from registry.evidence.collect import read_evidence
from registry.rollout.aws import parse_row
from registry.rollout.model import FleetRecord, Rollout

SAID = ROOT / "tests" / "fakes" / "said_by_0_4"


def said(name: str) -> bytes:
    return (SAID / "wire" / name).read_bytes()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device's folder."""
    home = tmp_path / "device"
    shutil.copytree(SAID / "device", home)
    for file in (home / "device.json", home / "claim.json"):
        file.write_text(file.read_text().replace("@HOME@", str(home)))
    for name in ("c.pem", "k.pem", "ca.pem"):
        (home / name).touch()
    return home


@pytest.fixture(scope="module")
def stored() -> tuple[MemoryObjects, dict]:
    """The bucket, and the rows of each table."""
    objects = MemoryObjects()
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            _, bucket, key = member.name.partition("-us-east-1/")
            if bucket and member.isfile() and not key.endswith(".meta.json"):
                objects.data[key] = archive.extractfile(member).read()  # type: ignore[union-attr]
            elif member.name.endswith("state/dynamodb.json"):
                tables = json.load(archive.extractfile(member))  # type: ignore[arg-type]
    rows = {
        table["TableName"]: [row for group in table["items"].values() for row in group.values()]
        for table in tables["payload"]["tables"]["data"].values()
    }
    return objects, rows


def test_its_heartbeats_and_replies_are_understood() -> None:
    beat = unseal(said("heartbeat.json"), Heartbeat)
    assert (beat.state, beat.model, beat.labels) == ("idle", "wind-farm/3", {"site": "west"})
    assert beat.serving and beat.serving.inputs[0].recent == Moments(700, 7.5, 2.5)
    assert unseal(said("last-will.json"), Heartbeat).state == "offline"
    body = json.loads(said("heartbeat.json"))["body"]
    assert decode_heartbeat(body) == beat
    answer = unseal(said("reply-content.json"), Reply)
    assert decode_skeleton(answer.content).metrics["metrics"]["inf"] == math.inf
    failed = unseal(said("reply-error.json"), Reply)
    assert (failed.code, failed.reason) == ("app-error", "ValueError: no data")
    update = unseal(said("reply-update.json"), Reply).update
    assert update and update.digest == digest(said("update.safetensors"))


def test_its_weights_files_and_record_descriptions_are_read() -> None:
    records = decode_records(said("update.safetensors"))
    assert records.names() == ("config", "arrays", "metrics")
    assert records.arrays["arrays"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert records.arrays["arrays"]["n"].dtype == np.int64
    assert records.metrics["metrics"] == {
        "inf": math.inf,
        "whole": 2**53,
        "list": [0.5, 1.0],
        "minus": -1.5e-9,
        "num-examples": 12,
    }
    assert records.configs["config"] == {
        "lr": 0.1,
        "name": "é",
        "raw": b"\x00\xff",
        "on": True,
        "many": ["a"],
    }
    described = decode_skeleton(said("skeleton.json"))
    assert (described.metrics, described.configs) == (records.metrics, records.configs)


def test_its_commands_are_refused_by_a_sentence_that_names_both_protocols() -> None:
    with pytest.raises(ProtocolError, match=r"protocol 2.*protocol 1: deploy") as refused:
        decode_signed(said("command.json"))
    assert refused.value.code == "outdated"


def test_its_device_keeps_its_configuration_and_its_claim(device: Path) -> None:
    config = load_config(device / "device.json")
    assert (config.device, config.fleet, config.rotate_days) == ("press-1", "hall", 30.0)
    assert (config.node_config, config.labels) == ({"partition-id": 0}, {"site": "west"})
    claim = read_struct(device / "claim.json", ProvisioningClaim, "claim")
    assert (claim.token, claim.template) == ("secret", "mledgeops")


def test_its_replies_that_wait_are_sent_and_those_sent_are_remembered(device: Path) -> None:
    spool = Spool(device / "spool")
    assert [reply.message_id for reply in spool.unsent()] == ["m-2"]
    assert spool.get("m-1") is not None
    assert spool.unsent()[0].payload == said("reply-content.json")


def test_its_model_stays_in_use_and_its_manifests_are_followed(device: Path) -> None:
    """The model that was installed, its statistics, and a manifest that a job still holds."""
    objects = FileObjects(device)
    store = ModelStore(device / "models", objects, Trust.of(device / "trust.json"), "hall")
    active = store.usable()
    assert active.manifest and active.manifest.model_version == "wind-farm/3"
    assert (active.sequence, active.metric, active.since) == (3, 0.25, 1.7e9)
    counted = serving(device / "serving", active.sequence)
    assert counted and (counted.predictions, counted.inputs[0].first.count) == (3, 3)
    waiting = parse_row((device / "job.json").read_bytes(), SignedManifest, "job")

    async def test(manifest: Manifest, file: Path) -> float:
        return 0.24

    asyncio.run(store.install(waiting, test))
    now = store.usable()
    assert now.manifest and (now.manifest.model_version, now.sequence) == ("wind-farm/4", 4)


def test_its_runs_go_on_from_their_checkpoints(stored: tuple[MemoryObjects, dict]) -> None:
    objects, _ = stored
    kept = sorted(key for key in objects.data if f"{SECOND}/checkpoints/" in key)
    found = [checkpoints.decode(objects.data[key]) for key in kept]
    assert [checkpoint.round for checkpoint in found] == [1, 2, 3, 4]
    assert all(checkpoint.record == b"" and checkpoint.arrays for checkpoint in found)
    spec = decode_spec(objects.data[f"runs/{SECOND}/run.json"])
    assert (spec.fleet, spec.num_rounds) == ("digits", 4)
    record = parse_row(objects.data[f"runs/{SECOND}/rounds/00004.json"], RoundRecord, "round")
    assert len(record.devices) == 4


def test_its_evidence_and_its_audit_trail_are_whole(stored: tuple[MemoryObjects, dict]) -> None:
    objects, _ = stored
    evidence = read_evidence(objects, FIRST)
    assert evidence and evidence.lineage.run == FIRST
    entries = MemoryEntries()
    entries.data = {key: data for key, data in objects.data.items() if key.startswith("audit/")}
    trail = AuditTrail(entries)
    assert trail.verify() == []
    assert [entry.what for entry in trail.entries()] == ["approve", "rollout", "rollout-ended"]


def test_the_rows_of_its_tables_are_read(stored: tuple[MemoryObjects, dict]) -> None:
    _, rows = stored
    found = {row["rollout"]["S"]: row["body"]["S"] for row in rows["mledgeops-rollouts"]}
    rollout = parse_row(found.pop("00000001"), Rollout, "row")
    assert (rollout.name, rollout.state, rollout.previous) == ("digits-1", "Succeeded", None)
    (current,) = (parse_row(body, FleetRecord, "row") for body in found.values())
    assert (current.fleet, current.candidate and current.candidate.model_version) == (
        "digits",
        "digits/1",
    )
    devices = [decode_row(row) for row in rows["mledgeops-devices"]]
    assert [d.heartbeat and d.heartbeat.state for d in devices] == ["offline"] * 2
    replies = [unseal_body(row) for row in rows["mledgeops-replies"]]
    assert {reply.status for reply in replies} == {"ok"}


def unseal_body(row: dict) -> Reply:
    return decode(row["body"]["S"], Reply)
