"""Commands that come again: as they were, at other times, to other devices, and changed."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from pipelines.chaos.injected import InjectedError, RecordedCall
from pipelines.chaos.stage import Stage
from pipelines.chaos.world import World

RECORD = InjectedError(service="iot-data-plane", share=1.0, record=True)
COPIES = 5
"""How many commands come again at once."""


def record_commands(world: World, _: random.Random) -> Callable[[], None]:
    """Write down what the proxies send to devices, until it is undone."""
    recording = contextlib.ExitStack()
    recording.enter_context(world.errors.failing(RECORD))
    return recording.close


def replay_commands(stage: Stage) -> None:
    """Send commands of this run, and of runs before it, again until the run has ended."""
    sent = 0
    while not stage.has_ended():
        calls = stage.world.errors.recorded()
        for call in stage.rng.choices(calls, k=COPIES) if calls else ():
            topic, payload = spoiled(call, stage.rng)
            stage.world.clients.iot_data.publish(topic=topic, qos=1, payload=payload)
            sent += 1
        time.sleep(stage.random_duration(0.1, 0.6))
    stage.note(f"{sent} commands came again")


def spoiled(call: RecordedCall, dice: random.Random) -> tuple[str, bytes]:
    """Topic and payload of a command that comes again: unchanged, to another device, for another
    upload address, or with a flipped bit.
    """
    topic = unquote(urlsplit(call.url).path.removeprefix("/topics/"))
    way = dice.randrange(4)
    if way == 1:
        fleet, device = topic.split("/")[1:3]
        other = f"{device[:-1]}{(int(device[-1]) + 1) % 4}"
        return f"fl/{fleet}/{other}/command", call.body
    if way == 2:
        return topic, call.body.replace(b"http://127.0.0.1", b"http://127.0.0.2")
    if way == 3 and call.body:
        at = dice.randrange(len(call.body))
        flipped = bytes([call.body[at] ^ 1 << dice.randrange(8)])
        return topic, call.body[:at] + flipped + call.body[at + 1 :]
    return topic, call.body
