"""A phase: content is uploaded once, each cohort gets a signed request, replies are in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from fakes.clock import Clock
from fakes.objects import MemoryObjects
from fakes.phases import ORDER_KEY
from fakes.runs import spec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from edge.protocol.messages import ObjectRef
from edge.protocol.orders import Grant, content_digest, grant_text
from edge.protocol.records import Records, encode_records, encode_skeleton
from edge.training.flower_compat import set_identity
from fl_runtime.run.cohorts import form_cohorts
from fl_runtime.run.concurrency import Threads
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import arrays_key
from fl_runtime.run.messages import (
    DeviceResult,
    PhaseDone,
    PhaseEvent,
    PhaseRequest,
    Target,
    failure,
)
from fl_runtime.server.grid.cohort_means import CohortMean
from fl_runtime.server.grid.contents import round_of
from fl_runtime.server.grid.fan_out import run_cohorts
from fl_runtime.server.grid.iot_grid import IoTGrid
from fl_runtime.server.grid.phase_policy import PhasePolicy
from fl_runtime.server.grid.phases import PhaseExecutor
from fl_runtime.server.grid.pushed import PushedMessages
from fl_runtime.server.grid.replies import PhaseReplies
from fl_runtime.server.grid.requests import NORM_FACTOR
from fl_runtime.server.grid.weights import WeightStore
from fl_runtime.server.rounds.array_records import to_arrays

DEVICES = ["d0", "d1", "d2", "d3"]


class EchoCohorts:
    """A backend whose devices answer at once, in reverse order, with a metric of their own."""

    def __init__(self) -> None:
        self.requests: list[PhaseRequest] = []

    def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
        self.requests.append(request)
        for target in reversed(request.targets):
            yield answer(target)
        yield PhaseDone(request.phase)


def answer(target: Target) -> DeviceResult:
    content = encode_skeleton(Records(metrics={"m": {"node": target.node_id % 97}}))
    return DeviceResult(
        device=target.device,
        node_id=target.node_id,
        message_id=target.message_id,
        status="ok",
        content=content,
    )


@pytest.fixture
def grid() -> IoTGrid:
    set_identity(1, 1)
    backend, objects = EchoCohorts(), MemoryObjects()
    phases = PhaseExecutor(
        spec(phase_seconds=60.0),
        form_cohorts("f", DEVICES, 2),
        backend,
        objects,
        clock=Clock(),
        signer=lambda text: f"signed {len(text)}",
    )
    grid = IoTGrid(phases)
    grid.backend, grid.objects = backend, objects
    return grid


def messages(grid: IoTGrid, kind: str = "train") -> list[Message]:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.ones(3, np.float32))}),
            "config": ConfigRecord({"server-round": 4}),
        }
    )
    return [Message(content, node, kind) for node in grid.get_node_ids()]


def test_replies_are_ordered_by_node_whoever_answered_first(grid: IoTGrid) -> None:
    replies = list(grid.send_and_receive(messages(grid)))
    nodes = [reply.metadata.src_node_id for reply in replies]
    assert nodes == sorted(grid.get_node_ids())
    assert [reply.content["m"]["node"] for reply in replies] == [node % 97 for node in nodes]


def test_a_content_is_uploaded_once_and_each_cohort_gets_a_key_of_its_own(grid: IoTGrid) -> None:
    list(grid.send_and_receive(messages(grid)))
    list(grid.send_and_receive(messages(grid)))
    assert len(grid.objects.puts) == 1, "the second phase sends the same weights"
    first, second = grid.backend.requests[:2]
    grants = [msgspec.json.decode(request.key.grant, type=Grant) for request in (first, second)]
    assert [grant.cohort for grant in grants] == ["c0000", "c0001"]
    assert first.key.private != second.key.private
    assert grants[0].key != grants[1].key
    for request, grant in zip((first, second), grants, strict=True):
        assert request.key.signature == f"signed {len(grant_text(request.key.grant))}"
        assert (grant.run, grant.phase, grant.kind) == (request.run, request.phase, "train")
        assert (grant.fleet, grant.app) == (request.fleet, request.app)
        assert grant.arrays == request.arrays.digest
        assert grant.content == content_digest(request.content, request.run_config)
    assert (first.phase, first.server_round) == (second.phase, 4)
    assert {first.cohort, second.cohort} == {"c0000", "c0001"}


def test_the_policy_says_how_replies_are_treated(grid: IoTGrid) -> None:
    members = grid.phases.members
    policy = PhasePolicy(
        available=members[:3],
        fold_by="examples",
        checked=True,
        norm_limit=2.5,
        over_selected=frozenset({members[0].node_id}),
    )
    under = grid.under(policy)
    assert list(under.get_node_ids()) == [member.node_id for member in members[:3]]
    replies = list(under.send_and_receive(messages(under)))
    assert all(reply.has_error() for reply in replies), "these cohorts fold nothing"
    requests = {r.cohort: r for r in grid.backend.requests if not r.accepted}
    over = requests["c0000"]
    assert (over.fold, over.weighted_by, over.checked) == (True, "examples", True)
    assert (over.norm_limit, over.norm_factor) == (2.5, NORM_FACTOR)
    assert over.enough == len(over.targets) - 1, "one of them was asked beyond the wanted number"
    assert requests["c0001"].enough == 0
    assert over.size_limit < 2**31
    assert over.specs is not None


def test_a_policy_holds_for_its_own_grid_only_and_cannot_be_changed(grid: IoTGrid) -> None:
    policy = PhasePolicy(available=grid.phases.members[:1], fold_by="examples")
    assert len(list(grid.under(policy).get_node_ids())) == 1
    assert len(list(grid.get_node_ids())) == 4
    list(grid.send_and_receive(messages(grid)))
    assert not grid.backend.requests[0].fold
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.checked = True  # type: ignore[misc]


def test_a_timeout_can_only_shorten_a_phase(grid: IoTGrid) -> None:
    for timeout in (None, 5.0, 3600.0):
        list(grid.send_and_receive(messages(grid), timeout=timeout))
    assert [request.seconds for request in grid.backend.requests[::2]] == [60.0, 5.0, 60.0]


def test_phases_are_numbered_on_from_where_a_run_resumes(grid: IoTGrid) -> None:
    grid.phases.resume_at(6)
    list(grid.send_and_receive(messages(grid)))
    assert grid.phases.sequence == 7
    (stats,) = grid.phases.take_stats()
    assert stats.phase.startswith("00004-train-0007-")
    assert [result.device for result in stats.results] == DEVICES
    assert grid.phases.take_stats() == []


def test_pushed_messages_are_pulled_once(grid: IoTGrid) -> None:
    ids = list(grid.push_messages(messages(grid)))
    grid.settle()
    assert len(list(grid.pull_messages(ids))) == 4
    assert list(grid.pull_messages(ids)) == []


def test_a_phase_that_fails_is_told_where_the_app_pulls() -> None:
    pushed = PushedMessages()
    pushed.begin()
    pushed.fail(ConnectionError("gone"))
    pushed.settle(0.0)
    with pytest.raises(ConnectionError, match="gone"):
        pushed.take([])


def test_the_round_is_that_of_the_configuration_or_of_the_group(grid: IoTGrid) -> None:
    node = next(iter(grid.get_node_ids()))
    assert round_of(messages(grid)) == 4
    assert round_of([Message(RecordDict(), node, "train", group_id="7")]) == 7
    assert round_of([Message(RecordDict(), node, "train", group_id="warm-up")]) == 0
    boolean = RecordDict({"config": ConfigRecord({"server-round": True})})
    assert round_of([Message(boolean, node, "train")]) == 0


def test_a_cohorts_exception_is_raised_where_its_phase_was_started() -> None:
    class Broken(EchoCohorts):
        def run(self, request: PhaseRequest) -> Iterator[PhaseEvent]:
            if request.cohort == "c1":
                raise ConnectionError("gone")
            yield PhaseDone(request.phase)

    requests = [_request("c0"), _request("c1")]
    with pytest.raises(ConnectionError, match="gone"):
        list(run_cohorts(Broken(), requests, Threads()))


def test_an_update_overwritten_after_its_check_is_an_error_reply(grid: IoTGrid) -> None:
    node = next(iter(grid.get_node_ids()))
    message = Message(RecordDict({"m": MetricRecord({"a": 1})}), node, "train")
    grid.phases.carry_out(grid.phases.begin([message], PhasePolicy(available=()), 1.0))
    (stats,) = grid.phases.take_stats()
    replies = PhaseReplies(grid.objects, {node: message}, stats)
    target = Target("d0", node, "m")
    gone = DeviceResult(
        device="d0", node_id=node, message_id="m", status="ok", update=ObjectRef("a" * 64, 3)
    )
    reply = replies.read(gone, _request("c0"))
    assert reply.has_error()
    assert stats.results[-1].code == "bad-digest"
    reply = replies.read(failure(target, "worker-died", "out of memory"), _request("c0"))
    assert "worker-died: out of memory" in reply.error.reason


def test_a_mean_answers_for_the_first_device_that_counts(grid: IoTGrid) -> None:
    batch = messages(grid)
    grid.phases.carry_out(grid.phases.begin(batch, PhasePolicy(available=()), 1.0))
    stats = grid.phases.take_stats()[0]
    by_node = {message.metadata.dst_node_id: message for message in batch}
    replies = PhaseReplies(grid.objects, by_node, stats)
    mean = CohortMean(Records(metrics={"metrics": {"num-examples": 7}}))
    targets = [Target(m.device, m.node_id, "x") for m in grid.phases.members]
    reply = replies.read(mean, _request("c0", targets))
    assert reply.metadata.src_node_id == targets[0].node_id
    assert reply.content["metrics"]["num-examples"] == 7


def test_weights_are_named_by_their_digest_and_shared_between_runs() -> None:
    objects = MemoryObjects()
    store = WeightStore(objects, "run-1")
    arrays = {"w": np.arange(3, dtype=np.float32)}
    name = store.save(arrays)
    assert store.save(arrays) == name
    assert len(objects.puts) == 1
    np.testing.assert_array_equal(store.load(name)["w"], arrays["w"])
    other = WeightStore(objects, "run-2")
    with pytest.raises(ObjectMissing):
        other.load(name)
    other.adopt(name, "run-1")
    np.testing.assert_array_equal(other.load(name)["w"], arrays["w"])
    other.adopt("f" * 64, "run-1")  # expired: skipped
    foreign = encode_records(Records(arrays={"arrays": {"w": np.ones(3, np.float32)}}))
    objects.put(arrays_key("run-1", name), foreign)
    with pytest.raises(ObjectMissing, match="not what its name says"):
        store.load(name)


def test_a_rounds_model_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Records] = []

    def encode(records: Records) -> bytes:
        encoded.append(records)
        return encode_records(records)

    monkeypatch.setattr("fl_runtime.server.grid.weights.encode_records", encode)
    store = WeightStore(MemoryObjects(), "run-1")
    model = to_arrays(ArrayRecord({"w": Array(np.ones(3, np.float32))}))
    content = Records(arrays={"arrays": model}, configs={"config": {"server-round": 1}})
    evaluated, name, trained = store.upload(content), store.save(model), store.upload(content)
    assert evaluated.arrays.digest == name == trained.arrays.digest
    assert len(encoded) == 1
    other = to_arrays(ArrayRecord({"w": Array(np.ones(3, np.float32))}))
    assert store.save(other) == name, "equal, but elsewhere: encoded, and not uploaded again"
    assert len(encoded) == 2
    writable = {"w": np.ones(3, np.float32)}
    first = store.save(writable)
    writable["w"][0] = 5.0
    assert store.save(writable) != first


def _request(cohort: str, targets: list[Target] | None = None) -> PhaseRequest:
    return PhaseRequest(
        run="run-1",
        fleet="f",
        cohort=cohort,
        phase="00004-train-0001-00000000",
        server_round=4,
        kind="train",
        app="a" * 64,
        targets=targets or [],
        content="",
        arrays=None,
        seconds=1.0,
        flower_run_id=1,
        run_config="{}",
        fold=False,
        key=ORDER_KEY,
    )
