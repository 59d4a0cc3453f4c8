"""``python -m pipelines.chaos.devices.skewed SECONDS CONFIG``: an agent whose clock is wrong."""

from __future__ import annotations

import sys
import time

from edge.agent.main import main

if __name__ == "__main__":
    real, error = time.time, float(sys.argv[1])
    time.time = lambda: real() + error
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    sys.exit(main())
