"""What goes wrong in one seed: how often, how slowly, and who dies when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

DEVICES = 5
MOST_DEVICES = 8
SYBILS = 3


@dataclass(kw_only=True)
class Weather:
    """A seed's faults. Shares are between 0 and 1, delays in seconds."""

    devices: int
    cohorts: int
    delay: float
    """Mean delay of a message or a transfer."""
    duplicated: float
    """Share of messages that arrive twice."""
    lost: float
    """Share of messages that do not arrive."""
    unacknowledged: float
    """Share of a device's messages that arrive without its hearing of it."""
    transfer_fails: float
    worker_dies: float
    service_fails: float
    """Share of the server's calls of AWS that end in an error, which ends the server."""
    store_fails: float
    """Share of MLflow's calls that fail."""
    server_faults: list[tuple[str, int, float]] = field(default_factory=list)
    """(kill or pause, at which step, for how long) of each server, the first one's first."""
    device_faults: dict[int, tuple[str, int, float]] = field(default_factory=dict)
    """(kill, cut or pause, at which step, how long it is away) by device."""
    hostile: dict[int, str] = field(default_factory=dict)
    """Behaviour by device."""
    skew: dict[int, float] = field(default_factory=dict)
    """Error of a device's wall clock in seconds."""

    def text(self) -> str:
        """For people."""
        told = [f"{kind} the server at step {step}" for kind, step, _ in self.server_faults]
        told += [
            f"{kind} device {device} at step {step} for {seconds:.0f} s"
            for device, (kind, step, seconds) in sorted(self.device_faults.items())
        ]
        told += [f"device {device} is {name}" for device, name in sorted(self.hostile.items())]
        return "; ".join(told) or "calm"


def weather_of(seed: int, behaviours: list[str]) -> Weather:
    """The faults of a seed. Three honest devices have only slow and lossy links, so that a run
    whose quorum is two has to succeed.
    """
    rng = random.Random(f"weather {seed}")  # noqa: S311  # chance
    sybils = rng.random() < 0.15
    devices = MOST_DEVICES if sybils else DEVICES
    weather = Weather(
        devices=devices,
        cohorts=rng.choice([1, 1, 2]),
        delay=rng.choice([0.01, 0.1, 0.5]),
        duplicated=rng.choice([0.0, 0.1, 0.5]),
        lost=rng.choice([0.0, 0.0, 0.1]),
        unacknowledged=rng.choice([0.0, 0.05, 0.2]),
        transfer_fails=rng.choice([0.0, 0.0, 0.05]),
        worker_dies=rng.choice([0.0, 0.0, 0.05]),
        service_fails=rng.choice([0.0, 0.0, 0.002]),
        store_fails=rng.choice([0.0, 0.0, 0.3]),
    )
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        kind = rng.choice(["kill", "kill", "pause"])
        weather.server_faults.append((kind, rng.randrange(1, 700), rng.uniform(5.0, 90.0)))
    for device in range(rng.choice([0, 1, 2])):
        kind = rng.choice(["kill", "cut", "cut", "pause"])
        weather.device_faults[device] = (kind, rng.randrange(1, 600), rng.uniform(1.0, 60.0))
    if sybils:
        name = rng.choice(["own-keys", "many-examples", "huge", "replay"])
        weather.hostile = dict.fromkeys(range(devices - SYBILS, devices), name)
    elif rng.random() < 0.6:
        weather.hostile = {devices - 1: rng.choice(behaviours)}
    for device in range(devices):
        if rng.random() < 0.2:
            weather.skew[device] = rng.choice([-1.0, 1.0]) * rng.uniform(1.0, 366 * 86_400)
    return weather
