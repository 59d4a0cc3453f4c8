"""The systemd installer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.paths import ROOT


def test_the_installer_says_what_is_missing(tmp_path: Path) -> None:
    def install_with(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(ROOT / "edge" / "systemd" / "install.sh"), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env={"PATH": os.environ["PATH"], "MLEDGEOPS_ROOT": str(tmp_path)},
        )

    (tmp_path / "agent.zip").touch()
    (tmp_path / "claims").mkdir()
    assert install_with().returncode == 2
    assert (
        "agent.zip does not exist"
        in install_with(str(tmp_path / "x" / "agent.zip"), str(tmp_path / "claims")).stderr
    )
    assert (
        "one claim file"
        in install_with(str(tmp_path / "agent.zip"), str(tmp_path / "claims")).stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.zip", "claims"]
