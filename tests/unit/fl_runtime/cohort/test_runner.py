"""A cohort's phase: every device gets exactly one result, whatever it does."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from fakes.clock import Clock
from fakes.fleet import MemoryFleet
from fakes.objects import MemoryObjects
from fakes.phases import LAYOUT, PHASE, phase_request, stored_weights
from msgspec.structs import replace

from edge.protocol.errors import DEVICE_CODES
from edge.protocol.messages import COMMAND_LIMIT, Command, ObjectRef, Reply
from edge.protocol.records import Records, decode_records, digest, encode_skeleton
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.keys import update_key
from fl_runtime.run.messages import (
    DeviceResult,
    Folded,
    PhaseDone,
)


def trained(value: float, examples: int = 10, **metrics: float):
    def device(command: Command, content: Records) -> Records:
        assert content.configs["config"]["lr"] == 0.1
        arrays = {"w": content.arrays["arrays"]["w"] + np.float32(value)}
        return Records(
            arrays={"arrays": arrays},
            metrics={"metrics": {"loss": value, "num-examples": examples, **metrics}},
        )

    return device


def run(
    devices: dict, *, fold: bool = True, config: dict | None = None, seconds: float = 5.0
) -> tuple[dict[str, DeviceResult], Records | None, MemoryFleet]:
    objects, clock = stored_weights(), Clock()
    fleet = MemoryFleet(objects, devices)
    content = encode_skeleton(
        Records(configs={"config": config or {"lr": 0.1}}, order=("arrays", "config"))
    )
    request = phase_request(*devices, content=content, seconds=seconds, fold=fold, layout=LAYOUT)
    events = list(CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep).run(request))
    assert isinstance(events[-1], PhaseDone)
    results = [item for item in events if isinstance(item, DeviceResult)]
    assert sorted(item.device for item in results) == sorted(devices), (
        "each device gets exactly one result"
    )
    means = [decode_records(item.records) for item in events if isinstance(item, Folded)]
    return {item.device: item for item in results}, means[0] if means else None, fleet


def test_updates_fold_into_one_weighted_mean() -> None:
    results, mean, _ = run({"a": trained(1.0, 10), "b": trained(4.0, 30)})
    assert mean is not None
    np.testing.assert_allclose(mean.arrays["arrays"]["w"], 3.25)
    assert mean.metrics["metrics"] == {"loss": 3.25, "num-examples": 40}
    assert {r.status for r in results.values()} == {"ok"}
    assert results["a"].metrics["loss"] == 1.0
    assert results["a"].bytes_up > 0


def test_without_folding_each_update_is_passed_on_by_reference() -> None:
    results, mean, fleet = run({"a": trained(1.0), "b": trained(2.0)}, fold=False)
    assert mean is None
    stored = fleet.objects.get(update_key("run-1", PHASE, "a"))
    assert results["a"].update is not None
    assert digest(stored) == results["a"].update.digest


def test_the_weights_are_stored_once_for_all_devices() -> None:
    _, _, fleet = run({name: trained(1.0) for name in "abcd"})
    assert len({command.arrays for _, command in fleet.commands}) == 1
    assert len({command.upload_url for _, command in fleet.commands}) == 4


class Refusing:
    """A table, or a list, some of whose reads are refused after the client's own retries."""

    def __init__(self, read: Callable[..., Any], refused: Container[int]) -> None:
        """``refused``: the reads that are, counted from 1."""
        self._read = read
        self._refused = refused
        self.reads = 0

    def read(self, *given: Any) -> Any:
        self.reads += 1
        if self.reads in self._refused:
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "Query")
        return self._read(*given)


def test_a_table_that_cannot_be_read_for_a_while_costs_time_and_no_reply() -> None:
    objects, clock = stored_weights(), Clock()
    fleet = MemoryFleet(objects, {"a": trained(1.0), "b": trained(2.0)})
    # The list of blocked devices is read when the phase begins, and with replies.
    replies, blocked = Refusing(fleet.read, {1, 2, 3}), Refusing(lambda: (), {2})
    runner = CohortRunner(
        fleet, replies, objects, clock=clock, sleep=clock.sleep, blocked=blocked.read
    )
    content = encode_skeleton(Records(configs={"config": {"lr": 0.1}}, order=("arrays", "config")))
    request = phase_request("a", "b", content=content, seconds=5.0, layout=LAYOUT)
    results = [item for item in runner.run(request) if isinstance(item, DeviceResult)]
    assert blocked.reads == 3
    assert sorted((item.device, item.status) for item in results) == [("a", "ok"), ("b", "ok")]


def test_a_table_that_cannot_be_read_at_all_leaves_the_devices_silent() -> None:
    objects, clock = stored_weights(), Clock()
    fleet = MemoryFleet(objects, {"a": trained(1.0)})
    runner = CohortRunner(
        fleet, Refusing(fleet.read, range(1, 10**6)), objects, clock=clock, sleep=clock.sleep
    )
    (result,) = [
        item
        for item in runner.run(phase_request("a", seconds=5.0, layout=LAYOUT))
        if isinstance(item, DeviceResult)
    ]
    assert result.code == "no-reply"


def error(command: Command, content: Records) -> Reply:
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="error",
        code="app-error",
        reason="boom",
    )


def forged(**changes):
    def device(command: Command, content: Records) -> Reply:
        good = Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="ok",
            update=ObjectRef("0" * 64, 10),
        )
        return replace(good, **changes)

    return device


def swapped(command: Command, content: Records) -> Reply:
    """Announces one file and uploads another."""
    return Reply(
        run=command.run,
        phase=command.phase,
        message_id=command.message_id,
        status="ok",
        update=ObjectRef("1" * 64, 2000),
    )


def records_of(**arrays):
    return lambda command, content: Records(
        arrays={"arrays": arrays}, metrics={"metrics": {"num-examples": 1, "loss": 0.0}}
    )


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (error, "app-error"),
        (lambda c, r: None, "no-reply"),
        (forged(run="run-2"), "foreign"),
        (forged(message_id="other"), "foreign"),
        (forged(phase="00002-train-0002"), "foreign"),
        (forged(), "update-missing"),
        (forged(update=ObjectRef("0" * 64, 2**33)), "too-large"),
        (swapped, "update-missing"),
        (records_of(w=np.full(3, np.nan, np.float32)), "not-finite"),
        (records_of(w=np.zeros(4, np.float32)), "shape"),
        (trained(1.0, -5), "examples"),
    ],
)
def test_a_bad_device_fails_alone(device, code: str) -> None:
    results, mean, _ = run({"bad": device, "a": trained(1.0), "c": trained(3.0)})
    assert results["bad"].code == code
    assert mean is not None
    np.testing.assert_allclose(mean.arrays["arrays"]["w"], 2.0)
    assert mean.metrics["metrics"]["num-examples"] == 20


def test_what_nobody_expected_is_left_to_the_server_and_not_folded() -> None:
    results, mean, _ = run({"a": trained(1.0), "odd": trained(9.0, 10, other=1.0)})
    assert {result.status for result in results.values()} == {"ok"}
    assert mean is not None
    np.testing.assert_allclose(mean.arrays["arrays"]["w"], 1.0)


def test_what_the_server_accepted_is_read_again_and_folded() -> None:
    objects, clock = stored_weights(), Clock()
    fleet = MemoryFleet(objects, {"a": trained(1.0), "b": trained(3.0), "c": trained(9.0)})
    runner = CohortRunner(fleet, fleet, objects, clock=clock, sleep=clock.sleep)
    request = phase_request("a", "b", "c", norm_factor=10.0)
    first = list(runner.run(request))
    assert not [item for item in first if isinstance(item, Folded)], "nothing is known yet"
    accepted = [r for r in first if isinstance(r, DeviceResult) and r.device != "c"]
    objects.data[update_key("run-1", PHASE, "b")] = b"another"
    *results, mean, done = runner.run(replace(request, accepted=accepted))
    assert {r.device: r.code for r in results} == {"a": "", "b": "bad-digest"}
    assert (mean.devices, mean.count, done) == (["a"], 1, PhaseDone(PHASE))
    assert len(fleet.commands) == 3, "no device is asked again"


def test_an_upload_with_another_digest_does_not_count() -> None:
    def liar(command: Command, content: Records) -> Reply:
        reply = fleet_box[0].accept(command, "liar", trained(1.0)(command, content))
        key = update_key(command.run, command.phase, "liar")
        fleet_box[0].objects.data[key] = fleet_box[0].objects.data[key][:-1] + b"\x7f"
        return reply

    fleet_box: list[MemoryFleet] = []
    original = MemoryFleet.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        fleet_box.append(self)

    MemoryFleet.__init__ = remember  # type: ignore[method-assign]
    try:
        results, mean, _ = run({"a": trained(1.0), "liar": liar})
    finally:
        MemoryFleet.__init__ = original  # type: ignore[method-assign]
    assert results["liar"].code == "bad-digest"
    assert mean is not None


def test_a_row_of_another_fleet_or_device_is_ignored() -> None:
    def device(command: Command, content: Records) -> Records:
        fleet = run_fleet[0]
        fleet.put_row(
            command.reply_key,
            "other",
            "b",
            Reply(run=command.run, phase=command.phase, message_id="x", status="error", code="x"),
        )
        fleet.put_row(
            command.reply_key,
            "f",
            "stranger",
            Reply(run=command.run, phase=command.phase, message_id="x", status="error", code="x"),
        )
        return trained(1.0)(command, content)

    objects, clock = stored_weights(), Clock()
    run_fleet = [MemoryFleet(objects, {"a": device, "b": lambda c, r: None})]
    request = phase_request("a", "b", seconds=3.0, layout=LAYOUT)
    events = list(
        CohortRunner(run_fleet[0], run_fleet[0], objects, clock=clock, sleep=clock.sleep).run(
            request
        )
    )
    codes = {item.device: item.code for item in events if isinstance(item, DeviceResult)}
    assert codes == {"a": "", "b": "no-reply"}


def test_long_configs_are_stored_once() -> None:
    _, mean, fleet = run(
        {"a": trained(1.0), "b": trained(1.0)}, config={"lr": 0.1, "note": "x" * 5000}
    )
    assert mean is not None
    assert mean.metrics["metrics"]["num-examples"] == 20
    assert len([key for key in fleet.objects.puts if "/content/" in key]) == 1


def test_long_urls_are_claim_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryObjects.url_to_put
    padding = "?" + "s" * COMMAND_LIMIT
    monkeypatch.setattr(
        MemoryObjects,
        "url_to_put",
        lambda self, key, seconds, limit: original(self, key, seconds, limit) + padding,
    )
    _, mean, fleet = run({"a": trained(1.0)})
    assert mean is not None
    assert [key for key in fleet.objects.puts if "/commands/" in key]


def test_a_device_cannot_make_up_reasons() -> None:
    """Each reason is a metric: thousands of them would cost, and hide the others."""

    def liar(command: Command, content: Records) -> Reply:
        return Reply(
            run=command.run,
            phase=command.phase,
            message_id=command.message_id,
            status="error",
            code="x9-made-up",
            reason="ha",
        )

    results, _, _ = run({"a": trained(1.0), "b": liar})
    assert results["b"].code == "other"


def test_every_reason_that_our_devices_give_is_known() -> None:
    """By the source: what the classes of failures are raised with."""
    import ast

    from support.paths import ROOT

    given = set()
    for file in (ROOT / "edge").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("ProtocolError", "ObjectError", "CommandRefused", "_refuse")
            ):
                given |= (
                    {node.args[0].value}
                    if node.args and isinstance(node.args[0], ast.Constant)
                    else set()
                )
            if (
                isinstance(node, ast.keyword)
                and node.arg == "code"
                and isinstance(node.value, ast.Constant)
            ):
                given.add(node.value.value)
    assert given - {"flood"} <= DEVICE_CODES, "add them to edge/protocol/errors.py"


def test_a_blocked_device_is_not_asked_and_its_reply_does_not_count() -> None:
    objects, clock = stored_weights(), Clock()
    blocked = {"a"}

    def late(command: Command, content: Records) -> Records:
        blocked.add("b")  # after its command was sent, before its reply is read
        return trained(9.0)(command, content)

    fleet = MemoryFleet(objects, {"a": trained(9.0), "b": late, "c": trained(1.0)})
    content = encode_skeleton(Records(configs={"config": {"lr": 0.1}}, order=("arrays", "config")))
    request = phase_request("a", "b", "c", content=content, seconds=5.0, layout=LAYOUT)
    runner = CohortRunner(
        fleet, fleet, objects, clock=clock, sleep=clock.sleep, blocked=lambda: set(blocked)
    )
    events = list(runner.run(request))
    results = {item.device: item.code for item in events if isinstance(item, DeviceResult)}
    assert (results["a"], results["b"]) == ("blocked", "blocked")
    assert "a" not in {device for device, _ in fleet.commands}
    (mean,) = [decode_records(item.records) for item in events if isinstance(item, Folded)]
    np.testing.assert_allclose(mean.arrays["arrays"]["w"], 1.0)
