"""``python -m pipelines.chaos.devices.skewed SECONDS CONFIG``: an agent whose clock is wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from edge.agent.main import main


def skewed(clock: Callable[[], float], error: float) -> Callable[[], float]:
    """A clock that is ``error`` seconds ahead of another."""
    return lambda: clock() + error


if __name__ == "__main__":
    time.time = skewed(time.time, float(sys.argv[1]))
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    sys.exit(main())
