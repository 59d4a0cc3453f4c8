"""Notebooks 01 and 03, a run that outlives its kernel, and a desk on AWS."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support.paths import ROOT

from pipelines.local.cloud import hosted_cloud, stop_running
from pipelines.local.home import Home

QUICKSTART = ROOT / "notebooks" / "01-quickstart.ipynb"
TEAM = ROOT / "notebooks" / "03-federated-step.ipynb"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    """A home of the test's own, whose cloud ends with it."""
    place = Home(tmp_path / "home")
    yield place
    stop_running(place)


def executed(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The outputs of all cells."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # its folder is not the checkout
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    from execute import execute

    done = execute(file)
    sys.modules.pop("execute")
    return [output for cell in done.cells for output in cell.get("outputs", [])]


def check_quickstart(outputs: list[dict[str, Any]]) -> None:
    data = [output.get("data", {}) for output in outputs]
    html = [page for shown in data for page in shown.get("text/html", "").splitlines()]
    assert any("Succeeded" in page and "rmse_kw" in page for page in html)
    assert any("PendingManualApproval" in page for page in html)
    assert any("srcdoc=" in page for page in html), "the model card is shown"
    assert any("image/png" in shown for shown in data), "the curves are drawn"
    assert any("expected_kw" in shown.get("text/plain", "") for shown in data)


@pytest.mark.proof
def test_the_quickstart_runs(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(place.root))
    check_quickstart(executed(QUICKSTART, monkeypatch))


@pytest.mark.proof
def test_a_teams_pipeline_registers_and_links_its_model(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(place.root))
    outputs = executed(TEAM, monkeypatch)
    said = [output.get("text", "") for output in outputs]
    shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
    assert any("the nearest is 'rounds'" in text for text in said)
    assert any("Register: Succeeded" in text for text in said)
    assert any("digits/1" in text and "PendingManualApproval" in text for text in shown)
    assert any("('Failed', 'accuracy 0." in text for text in shown)


@pytest.mark.proof
def test_the_quickstart_runs_on_aws_by_changing_connect_alone(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS by its endpoints. The home that the kernel would look for a local cloud in is empty."""
    cloud = hosted_cloud(place)
    for name, value in place.environment(cloud.info).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path / "none"))
    text = QUICKSTART.read_text().replace('connect(\\"local\\")', 'connect(\\"aws\\")')
    copy = ROOT / "notebooks" / f"aws-{os.getpid()}.ipynb"
    copy.write_text(text)
    try:
        check_quickstart(executed(copy, monkeypatch))
    finally:
        copy.unlink()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("file", [QUICKSTART, TEAM], ids=lambda file: file.stem)
def test_a_committed_notebook_has_its_outputs_and_no_path_of_a_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "it was executed from top to bottom"
    assert sum(bool(cell.outputs) for cell in code) >= len(code) // 2
    assert not any(part in file.read_text() for part in ("/root/", "/home/", "/work/", "/tmp/"))


START = """
from pipelines import connect
run = connect("local").run("notebooks/apps/digits", wait=False, rounds=30)
print(run.id, flush=True)
run.wait()
"""


@pytest.mark.proof
def test_a_run_goes_on_when_its_kernel_is_killed_and_is_taken_up_in_another(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(place.root))
    kernel = subprocess.Popen(
        [sys.executable, "-c", START], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    name = kernel.stdout.readline().strip()
    kernel.kill()
    kernel.wait()
    from pipelines import connect
    from pipelines.errors import UsageError

    desk, before = connect("local"), dict(os.environ)
    run = desk.attach(name)
    assert run.status in ("Starting", "Running")
    with pytest.raises(UsageError, match="under way on fleet digits"):
        desk.run(ROOT / "notebooks/apps/digits", wait=False)
    beside = desk.run(ROOT / "notebooks/apps/digits", wait=False, fleet="other", rounds=1)
    queued = desk.run(ROOT / "notebooks/apps/digits", wait=False, queue=True, rounds=1)
    assert queued.status == "Queued"
    assert (beside.wait(progress=False).status, run.status) == ("Succeeded", "Running")
    assert run.wait(progress=False).status == "Succeeded"
    assert len(run.rounds) == 30
    assert desk.attach(queued.id).wait(progress=False).status == "Succeeded"
    assert list(desk.compare(run, beside).loc["fleet"]) == ["digits", "other"]
    changed = {name for name in before.keys() | os.environ.keys() if "AWS" in name or "ML" in name}
    assert {n for n in changed if before.get(n) != os.environ.get(n)} <= {
        "MLFLOW_DISABLE_TELEMETRY",
        "_MLFLOW_TELEMETRY_SESSION_ID",
    }


WITHOUT_EMULATORS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ministack", "moto", "psutil", "awscrt", "awsiot", "greenlet"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from pipelines import connect
desk = connect("aws")
run = desk.attach(sys.argv[1])
print(len(desk.runs()), len(desk.models()), run.status, desk.model(run.model.name).approval)
desk.fleet()
"""


def test_a_desk_on_aws_needs_no_emulator(
    cloud: Any, report: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, **cloud.home.environment(cloud.info), "MLEDGEOPS_HOME": "/none"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EMULATORS, report["run_id"]],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs, models, status, _ = done.stdout.split()
    assert (int(runs) >= 1, int(models) >= 1, status) == (True, True, "Succeeded")
