"""What ``mledgeops new`` writes passes its own tests, suits the linter, and ends with a model,
behind a company's proxy too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import mledgeops

from pipelines.local.cloud import LocalCloud
from pipelines.starters import TEMPLATES


@pytest.mark.proof
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_app_runs_at_once(
    cloud: LocalCloud,
    home: Path,
    tmp_path: Path,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cloud.info
    app = tmp_path / f"press-{template}"
    mledgeops("new", str(app), "--template", template, home=home)
    for tool in (["ruff", "check", "."], ["pytest", "-q"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool], cwd=app, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
    looked = json.loads(mledgeops("doctor", "--app", str(app), "--json", home=home).stdout)
    levels = {finding["what"]: finding["level"] for finding in looked["findings"]}
    assert (levels["local cloud"], levels["app"]) == ("ok", "ok")
    # A company's proxy, which knows nothing of this machine's loopback.
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    said = mledgeops("run", str(app), "--devices", "2", "--rounds", "2", "--json", home=home)
    report = json.loads(said.stdout)
    first, last = (report["rounds"][index]["evaluate"]["rmse"] for index in (0, -1))
    assert report["status"] == "Succeeded" and report["model_package_arn"]
    assert last < first
