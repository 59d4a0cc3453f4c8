"""The agent's command line: one sentence and an exit code when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_without_a_nucleus_the_agent_says_so(tmp_path: Path) -> None:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_GG", "SVCUID", "AWS_IOT"))
    }
    run = [sys.executable, "-m", "edge.agent", "--greengrass", "--home", str(tmp_path)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "AWS_IOT_THING_NAME is not set" in done.stderr) == (2, True)
    done = subprocess.run(
        run,
        env={**environment, "AWS_IOT_THING_NAME": "d"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "not a Greengrass component" in done.stderr.splitlines()[-1]
