"""Messages that several threads send at the same time are one phase."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.runs import DEVICES, grid_of, spec
from flwr.app import ConfigRecord, Message, RecordDict

from edge.protocol.messages import Command
from edge.protocol.records import Records
from fl_runtime.server.grid.combining import CombiningGrid


def echo(command: Command, content: Records) -> Records:
    return Records(metrics={"m": {"number": content.configs["c"]["number"]}})


def test_each_thread_gets_its_own_reply() -> None:
    grid = CombiningGrid(grid_of(dict.fromkeys(DEVICES, echo), spec()))
    nodes, together = list(grid.get_node_ids()), threading.Barrier(len(DEVICES), timeout=10)

    def ask(number: int) -> int:
        content = RecordDict({"c": ConfigRecord({"number": number})})
        together.wait()
        (reply,) = grid.send_and_receive([Message(content, nodes[number], "train")])
        return int(reply.content["m"]["number"])

    with ThreadPoolExecutor(len(DEVICES)) as pool:
        for _ in range(2):
            assert list(pool.map(ask, range(len(DEVICES)))) == list(range(len(DEVICES)))
    assert [len(phase.results) for phase in grid.phases.take_stats()] == [6, 6]


def test_what_a_phase_raises_is_raised_to_all_of_its_threads() -> None:
    grid = CombiningGrid(grid_of(dict.fromkeys(DEVICES, echo), spec()))

    def fail(*_: object) -> None:
        raise ConnectionError("gone")

    grid.phases.begin = fail
    for _ in range(2):
        with pytest.raises(ConnectionError, match="gone"):
            grid.send_and_receive([Message(RecordDict(), next(iter(grid.get_node_ids())), "train")])
