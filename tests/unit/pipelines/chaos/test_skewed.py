"""An agent with a wrong clock is an agent: same arguments, same refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipelines.chaos.devices import skewed


def test_the_skewed_agent_passes_its_arguments_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", skewed.__name__, "3600", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
