"""Server and proxy over real gRPC with mutual TLS on loopback."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import msgspec
import pytest
from fakes.phases import PHASE, device_result, phase_request

from edge.protocol.records import Records, encode_records
from fl_runtime.cohort.attach import attach
from fl_runtime.cohort.hub import ProxyHub
from fl_runtime.cohort.mtls import make_identities
from fl_runtime.cohort.rpc import METHOD
from fl_runtime.run.messages import (
    DeviceResult,
    Folded,
    FoldedPart,
    PhaseDone,
    PhaseRequest,
    failure,
)
from fl_runtime.server.grid.cohort_means import MeanParts


def request(cohort: str, seconds: float = 20.0) -> PhaseRequest:
    return phase_request("d0", "d1", cohort=cohort, seconds=seconds, arrays=None)


class Answers:
    """A CohortRunner that answers at once, or dies the first time."""

    def __init__(self, fail_first: bool = False, fail_late: bool = False) -> None:
        self.fail_first, self.fail_late = fail_first, fail_late
        self.seen: list[str] = []

    def run(self, asked: PhaseRequest):
        self.seen.append(asked.phase)
        for target in asked.targets:
            yield DeviceResult(
                device=target.device,
                node_id=target.node_id,
                message_id=target.message_id,
                status="ok",
                metrics={"loss": [1.0, 2.0], "n": 3},
            )
            if self.fail_first and len(self.seen) == 1:
                raise ConnectionError("the proxy was killed")
        yield Folded(asked.phase, encode_records(Records(metrics={"m": {"n": 6}})), 2)
        if self.fail_late and len(self.seen) == 1:
            raise ConnectionError("the proxy was killed")
        yield PhaseDone(asked.phase)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_runtime.cohort.hub.STOP_SECONDS", 0.3)
    monkeypatch.setattr("fl_runtime.cohort.hub.GRACE_SECONDS", 0.2)


@pytest.fixture
def hub():
    server, proxies = make_identities("127.0.0.1", ["c0000", "c0001", "c9999"])
    made = ProxyHub(["c0000", "c0001"], server, host="127.0.0.1", clock=time.monotonic)
    yield made, f"127.0.0.1:{made.port}", proxies
    made.close()


def proxy_thread(address: str, cohort: str, identities, runner, results: list) -> threading.Thread:
    def serve() -> None:
        try:
            results.append(attach(address, cohort, identities[cohort], runner))
        except ConnectionError:
            results.append("died")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_phase_goes_to_its_proxy_and_back(hub) -> None:
    made, address, identities = hub
    ended: list = []
    thread = proxy_thread(address, "c0001", identities, Answers(), ended)
    events = list(made.run(request("c0001")))
    assert [type(item).__name__ for item in events] == [
        "DeviceResult",
        "DeviceResult",
        "Folded",
        "PhaseDone",
    ]
    assert events[0].metrics == {"loss": [1.0, 2.0], "n": 3}
    made.close()
    thread.join(10)
    assert ended == [True], "a goodbye ends the proxy"


def test_phases_of_one_cohort_at_the_same_time_each_get_their_answers(hub) -> None:
    made, address, identities = hub
    proxy_thread(address, "c0000", identities, Answers(), [])
    asked = [
        phase_request(f"d{number}", cohort="c0000", phase=f"{PHASE[:-1]}{number}", arrays=None)
        for number in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda phase: list(made.run(phase)), asked))
    for number, events in enumerate(found):
        results = [item for item in events if isinstance(item, DeviceResult)]
        assert [(item.device, item.status) for item in results] == [(f"d{number}", "ok")]


def test_a_proxy_that_attaches_during_a_phase_gets_its_request(hub) -> None:
    made, address, identities = hub
    threading.Timer(0.2, proxy_thread, (address, "c0000", identities, Answers(), [])).start()
    assert len(list(made.run(request("c0000")))) == 4


@pytest.mark.parametrize("late", [False, True], ids=["before the mean", "after the mean"])
def test_a_proxy_that_dies_in_a_phase_is_replaced_and_nobody_is_counted_twice(
    hub, late: bool
) -> None:
    made, address, identities = hub
    first: list = []
    proxy_thread(address, "c0000", identities, Answers(fail_first=not late, fail_late=late), first)
    threading.Timer(0.2, proxy_thread, (address, "c0000", identities, Answers(), [])).start()
    events = list(made.run(request("c0000")))
    assert sorted(item.device for item in events if isinstance(item, DeviceResult)) == ["d0", "d1"]
    assert sum(isinstance(item, Folded) for item in events) == 1


def test_a_lost_cohort_costs_its_devices_and_the_phase_ends(hub) -> None:
    made, _, _ = hub
    events = list(made.run(request("c0000", seconds=0.3)))
    assert [item.code for item in events if isinstance(item, DeviceResult)] == [
        "cohort-lost",
        "cohort-lost",
    ]


def test_events_of_an_earlier_phase_are_ignored(hub) -> None:
    made, address, identities = hub

    class Confused(Answers):
        def run(self, asked: PhaseRequest):
            for target in asked.targets:
                yield DeviceResult(
                    device=target.device,
                    node_id=target.node_id,
                    message_id="an earlier one",
                    status="ok",
                )
            yield Folded("00000-train-0000", b"", 2)
            yield from super().run(asked)

    proxy_thread(address, "c0000", identities, Confused(), [])
    events = list(made.run(request("c0000")))
    assert [item.message_id for item in events if isinstance(item, DeviceResult)] == [
        "m-d0",
        "m-d1",
    ]
    assert [item.phase for item in events if isinstance(item, Folded)] == [PHASE]


def test_without_the_runs_certificate_nobody_attaches(hub) -> None:
    _, address, _ = hub
    _, strangers = make_identities("127.0.0.1", ["c0000"])
    assert attach(address, "c0000", strangers["c0000"], Answers()) is False
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        next(channel.stream_stream(METHOD)(iter([b""]), timeout=3))


def test_an_unknown_cohort_is_refused(hub) -> None:
    _, address, identities = hub
    assert attach(address, "c9999", identities["c9999"], Answers()) is False


def test_proxies_attach_to_the_successor_of_a_replaced_server(hub) -> None:
    running, address, identities = hub
    results: list = []
    thread = proxy_thread(address, "c0000", identities, Answers(), results)
    list(running.run(request("c0000")))
    running.close(goodbye=False)
    thread.join(10)
    assert results == [False], "no goodbye: the proxy looks for the run's next server"
    other, successors = make_identities("127.0.0.1", ["c0000"])
    successor = ProxyHub(["c0000"], other, host="127.0.0.1", clock=time.monotonic)
    try:
        thread = proxy_thread(
            f"127.0.0.1:{successor.port}", "c0000", successors, Answers(), results
        )
        assert any(isinstance(item, Folded) for item in successor.run(request("c0000")))
    finally:
        successor.close()
    thread.join(10)
    assert results == [False, True], "the last server says goodbye"


def test_a_proxy_speaks_for_the_cohort_of_its_certificate_alone(hub) -> None:
    made, address, identities = hub
    runner = Answers()
    thread = threading.Thread(
        target=attach, args=(address, "c0001", identities["c0000"], runner), daemon=True
    )
    thread.start()
    events = list(made.run(request("c0001", seconds=0.3)))
    assert [item.code for item in events if isinstance(item, DeviceResult)] == ["cohort-lost"] * 2
    assert len(list(made.run(request("c0000")))) == 4, "it is the proxy of c0000, whatever it says"


@pytest.mark.parametrize(
    "change",
    [{"device": "d9"}, {"node_id": 7}, {"message_id": "m-d1"}],
    ids=["another device", "another node", "another message"],
)
def test_a_result_must_be_of_a_device_that_the_cohort_was_asked_for(hub, change) -> None:
    made, address, identities = hub

    class Lying(Answers):
        def run(self, asked: PhaseRequest):
            first = asked.targets[0]
            told = {"device": first.device, "node_id": first.node_id} | {
                "message_id": first.message_id
            }
            yield DeviceResult(status="ok", **{**told, **change})
            yield PhaseDone(asked.phase)

    proxy_thread(address, "c0000", identities, Lying(), [])
    events = list(made.run(request("c0000")))
    assert [item.code for item in events if isinstance(item, DeviceResult)] == ["cohort-lost"] * 2


def nested(metrics: bytes) -> bytes:
    """A device's result in MessagePack, with these metrics."""
    result = msgspec.to_builtins(device_result("d0", node_id=0))
    encoded = msgspec.msgpack.encode({**result, "metrics": None})
    return b"\x00" + encoded.replace(b"\xa7metrics\xc0", b"\xa7metrics" + metrics)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\x00\xff",
        b"\x01" + b"x",
        nested(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0"),
        nested(b"\x81\xa1a\xa4text"),
    ],
    ids=["nothing", "empty", "no message", "small part", "nested", "text for a metric"],
)
def test_garbage_ends_the_stream_at_once_and_a_proxy_can_attach(hub, garbage: bytes) -> None:
    made, address, identities = hub
    held, over = identities["c0000"], threading.Event()

    def say():
        yield garbage
        over.wait(10)

    credentials = grpc.ssl_channel_credentials(held.ca, held.key, held.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        with pytest.raises(grpc.RpcError) as ended:
            next(channel.stream_stream(METHOD)(say(), timeout=5))
        over.set()
    assert ended.value.code() == grpc.StatusCode.CANCELLED, "not the deadline"
    proxy_thread(address, "c0000", identities, Answers(), [])
    assert len(list(made.run(request("c0000")))) == 4


def test_what_a_proxy_says_of_a_device_is_shown_on_one_printable_line(hub) -> None:
    made, address, identities = hub

    class Loud(Answers):
        def run(self, asked: PhaseRequest):
            for target in asked.targets:
                yield failure(target, "x" * 100, "\x1b[2J" + "r" * 10_000)
            yield PhaseDone(asked.phase)

    proxy_thread(address, "c0000", identities, Loud(), [])
    results = [item for item in made.run(request("c0000")) if isinstance(item, DeviceResult)]
    assert len(results) == 2
    for result in results:
        assert len(result.code) == 40
        assert result.reason.isprintable()
        assert len(result.reason) == 1000


def test_a_proxy_that_says_nothing_loses_its_stream_and_can_attach_again(hub) -> None:
    made, address, identities = hub
    ended: list = []

    class Silent:
        def __init__(self) -> None:
            self.asked = threading.Event()

        def run(self, asked: PhaseRequest):
            self.asked.set()
            return iter(())

    thread = proxy_thread(address, "c0000", identities, Silent(), ended)
    list(made.run(request("c0000", seconds=0.3)))
    thread.join(5)
    assert ended == [False], "no goodbye: it is to attach again"
    proxy_thread(address, "c0000", identities, Answers(), [])
    assert len(list(made.run(request("c0000")))) == 4


def test_one_cohort_cannot_take_the_streams_of_the_others(hub) -> None:
    made, address, identities = hub
    silent = threading.Event()

    def nothing():
        silent.wait(10)
        yield b""

    held = identities["c0000"]
    credentials = grpc.ssl_channel_credentials(held.ca, held.key, held.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        streams = [channel.stream_stream(METHOD)(nothing()) for _ in range(30)]
        proxy_thread(address, "c0001", identities, Answers(), [])
        assert len(list(made.run(request("c0001", seconds=5.0)))) == 4
        silent.set()
        for stream in streams:
            stream.cancel()


def test_a_message_longer_than_any_of_a_proxys_ends_the_stream(hub) -> None:
    made, address, identities = hub
    ended: list = []

    class Huge(Answers):
        def run(self, asked: PhaseRequest):
            yield Folded(asked.phase, bytes(8 * 2**20), 2)

    thread = proxy_thread(address, "c0000", identities, Huge(), ended)
    events = list(made.run(request("c0000", seconds=0.5)))
    assert not any(isinstance(item, Folded) for item in events)
    thread.join(5)
    assert ended == [False]


def test_a_model_far_above_the_limit_of_grpc_arrives_whole(hub) -> None:
    made, address, identities = hub
    blob = bytes(range(256)) * 2**14 * 3  # 12 MiB
    size = 2**20

    class Large(Answers):
        def run(self, asked: PhaseRequest):
            for at in range(0, len(blob) - size, size):
                yield FoldedPart(asked.phase, at, blob[at : at + size])
            yield Folded(asked.phase, blob[-size:], 2)
            yield PhaseDone(asked.phase)

    proxy_thread(address, "c0000", identities, Large(), [])
    asked = phase_request("d0", cohort="c0000", seconds=20.0, arrays=None, size_limit=2**25)
    parts = MeanParts()
    for item in made.run(asked):
        if isinstance(item, FoldedPart):
            parts.add(item)
        elif isinstance(item, Folded):
            received = parts.finish(item)
    assert received.records == blob
