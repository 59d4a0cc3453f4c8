"""Where fuzzing begins: one good input of each target, and those that once broke something."""

from __future__ import annotations

import json
import random

import msgspec
import numpy as np
from fakes.keys import PUBLIC, RECORDS, a_grant, claim_of, sealed
from fakes.phases import PHASE, device_result, update
from fakes.rollouts import candidate
from support.hostile import good_command, good_heartbeat, good_reply

from edge.protocol.messages import Moments, ObjectRef, Reply, Served, Serving, seal
from edge.protocol.records import Records, ValueMap, encode_records, encode_skeleton
from edge.protocol.signed import Manifest, SignedManifest
from fl_runtime.cohort.rpc import FromProxy, frames
from fl_runtime.run.messages import Folded, FoldedPart, PhaseDone
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.rounds.checkpoints import Checkpoint
from fl_runtime.server.rounds.checkpoints import encode as encode_checkpoint
from fuzz.device_path import DEVICE_PATHS, SEPARATOR, input_of
from registry.audit import AuditEntry
from registry.policy import Policy, RolloutPolicy
from registry.provenance import SignedProvenance
from registry.rollout.model import FleetRecord, Rollout, Wave

_VALUES: ValueMap = {"a": 1, "b": [1.5, float("nan")], "c": float("inf")}
_SERVING = Serving(
    predictions=7,
    inputs=[Served("a", Moments(3, 1.0, 2.0), Moments(4, 1e30, 1e30)), Served("b")],
    residuals=Served("r", Moments(3, 1.0, 0.0), Moments(4, 2.0, 3.0)),
)
_RECORDS = Records(
    arrays={"arrays": {"w": np.zeros(3, np.float32), "n": np.zeros((), np.int64)}},
    metrics={"metrics": {"loss": 0.5, "num-examples": 10}},
    configs={"config": {**_VALUES, "s": "text", "raw": b"\xff", "yes": True}},
)
_MANIFEST = Manifest(
    fleet="f",
    model_version="m/1",
    digest="a" * 64,
    size=10,
    app="b" * 64,
    metric="loss",
    goal="minimize",
    tolerance=0.1,
    sequence=1,
)


def _described(**tensors: object) -> bytes:
    """The header of a weights file with the array ``w``."""
    skeleton = {"order": ["a"], "arrays": {"a": ["w"]}, "metrics": {}, "configs": {}}
    return json.dumps({"__metadata__": {"records": json.dumps(skeleton)}, **tensors}).encode()


def _tensor(*shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]}


HEADERS = [
    _described(**{"0": _tensor(0, 2**63)}),
    _described(**{"0": _tensor(0, 2**62, 2**62)}),
    json.dumps({"__metadata__": {"records": '{"order": ["\ud800"]}'}}).encode(),
    b'{"0": NaN}',
    b'{"0": ' + b"9" * 5000 + b"}",
    b'{"a":' * 1500,
    b'{"0": {"a": 1, "a": 2}}',
]
"""Of weights files that were not refused, or not as they should be."""


def _json(message: object) -> bytes:
    return msgspec.json.encode(message)


def _replies() -> list[bytes]:
    """Replies that announce an update, whatever it will be, and some that hold their records."""
    announced = _json(
        Reply(
            run="run-1",
            phase=PHASE,
            message_id="m-evil",
            status="ok",
            update=ObjectRef("0" * 64, 1),
        )
    )
    announced = announced.replace(b'"' + b"0" * 64 + b'","size":1', b'"@digest","size":@size')
    text = encode_skeleton(Records(metrics={"metrics": {"loss": 2.0, "num-examples": 10}}))
    inline = Reply(run="run-1", phase=PHASE, message_id="m-evil", status="ok", content=text)
    failed = Reply(
        run="run-1", phase=PHASE, message_id="m-evil", status="error", code="x", reason="\u202e"
    )
    return [announced, _json(inline), _json(failed)]


def _path() -> list[bytes]:
    announced, *others = _replies()
    blob = encode_records(update(2.0, loss=2.0))
    headers = [announced + b"\n\n" + header + b"\n\n" for header in HEADERS]
    return [input_of(announced, blob), *(input_of(body, blob) for body in others), *headers]


def _checkpoint() -> bytes:
    state = random.Random(1).getstate()
    records = Records(arrays={"m": {"x": np.zeros(2)}}, configs={"c": {"a": 1}})
    checkpoint = Checkpoint(
        round=1,
        sequence=2,
        arrays=_RECORDS.arrays["arrays"],
        random_state=_json(state).decode(),
        state=records,
    )
    return encode_checkpoint(checkpoint)


def _said_by_a_proxy() -> list[FromProxy]:
    told = {"loss": [0.5, 1], "num-examples": 10}
    return [
        device_result("d0", metrics=told, norm=1.0, examples=10.0, update=ObjectRef("a" * 64, 9)),
        device_result("d1", status="error", code="app-error", reason="it failed"),
        FoldedPart(PHASE, 0, b"part"),
        Folded(PHASE, b"records", 2, ["d0", "d1"]),
        PhaseDone(PHASE),
    ]


def _stored() -> list[object]:
    entry = AuditEntry(
        number=1,
        at=1.0,
        who="ann",
        what="policy",
        subject="policy",
        why="",
        details={"policy": msgspec.to_builtins(Policy())},
        before="0" * 64,
    )
    return [entry, Policy(), SignedProvenance(record="{}", signature=RECORDS.sign(b"{}"))]


def seeds(name: str) -> list[bytes]:
    """Inputs of a target."""
    if name.removeprefix("path-") in DEVICE_PATHS:
        return _path()
    manifest = SignedManifest(manifest=_json(_MANIFEST).decode(), signature="s", url="http://x")
    job = {"execution": {"jobId": "j-1", "jobDocument": msgspec.to_builtins(manifest)}}
    heartbeat = _json(msgspec.structs.replace(good_heartbeat(), since=5.0, serving=_SERVING))
    sender = {"fleet": {"S": "f"}, "device": {"S": "d"}, "last_seen": {"N": "1"}}
    row = {**sender, "body": {"S": heartbeat.decode()}}
    shadow = {"version": {"timestamp": 1}}
    grant = _json(a_grant(good_command())).replace(PUBLIC.encode(), b"@key")
    asked = good_command()
    claim, _ = claim_of(asked, "http://x")
    good: dict[str, list[bytes]] = {
        "gate": [
            *(SEPARATOR.join((grant, _json(order))) for order in (asked, claim)),
            sealed(asked),
        ],
        "records": [encode_records(_RECORDS), *(header + b"\n\n" for header in HEADERS)],
        "skeleton": [encode_skeleton(Records(metrics={"m": _VALUES})).encode()],
        "order": [
            _json(good_command()),
            _json(claim_of(good_command(), "http://x")[0]),
            _json(a_grant(good_command())),
            sealed(good_command()),
        ],
        "reply": [_json(good_reply()), seal(good_reply(), "k"), *_replies()],
        "heartbeat": [_json(good_heartbeat()), heartbeat],
        "manifest": [_json(_MANIFEST), _json(manifest), _json(job)],
        "shadow": [b'{"state": {"desired": {"certificate_after": 1.5}}}', b'{"state": {}}'],
        "names": [b"device-1", b"a" * 64, b"train.baseline", "d\u202e".encode()],
        "rows": [_json(row), b'{"M": {"a": {"S": "b"}}}', b'{"body": {"S": "\\ud800"}}'],
        "text": [_json({"metadata": {"reported": {"model": shadow}}}), "\u202ea\x1b".encode()],
        "rollout": [_json(_ROLLOUT), _json(FleetRecord(fleet="f"))],
        "spec": [_json(SPEC)],
        "checkpoint": [_checkpoint()],
        "proxy": [b"".join(frames(item))[1:] for item in _said_by_a_proxy()],
        "stored": [_json(item) for item in _stored()],
    }
    return good[name]


SPEC = RunSpec(run="r", fleet="f", app="a" * 64, app_name="x", num_rounds=1, min_devices=1)
_ROLLOUT = Rollout(
    fleet="f",
    number=1,
    candidate=candidate(1),
    previous=None,
    policy=RolloutPolicy(),
    by="me",
    reason="better",
    forced=False,
    state="Canary",
    started_at=1.0,
    sequence=1,
    waves=[Wave(devices=["d"], jobs=["j"], started_at=1.0)],
)
