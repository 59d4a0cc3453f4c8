"""``local down`` does not take the cloud from under a run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import msgspec
import pytest

from pipelines.cli.commands.operate import cloud as command
from pipelines.errors import UsageError
from pipelines.local.home import CloudInfo, Home
from pipelines.local.processes import identity
from pipelines.local.sagemaker.executions import ExecutionFiles, PipelineExecution

ARN = "arn:aws:sagemaker:r:a:pipeline/p/execution/1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose cloud is this process, with a run under way."""
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path))
    here = os.getpid()
    info = CloudInfo(
        pid=here,
        gateway_port=1,
        mqtt_port=2,
        sagemaker_port=3,
        started_at=4.0,
        process=identity(here),
    )
    home = Home(tmp_path)
    home.info_file.write_bytes(msgspec.json.encode(info))
    ExecutionFiles(home.executions).save(PipelineExecution(ARN, "p", {}, {}))
    return home


def test_while_a_run_is_under_way_it_is_refused(home: Home) -> None:
    with pytest.raises(UsageError, match=r"A run is under way in .*p/execution/1.*--stop-runs"):
        command.stop(argparse.Namespace(stop_runs=False, json=True))


def test_asked_to_it_stops_the_run_in_order_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    files = ExecutionFiles(home.executions)

    class Pipelines:
        def stop_pipeline_execution(self, PipelineExecutionArn: str, **_: str) -> None:
            done.append(PipelineExecutionArn)
            files.save(PipelineExecution(ARN, "p", {}, {}, status="Stopped"))

    monkeypatch.setattr(command, "client", lambda service: Pipelines())
    monkeypatch.setattr(command, "stop_running", lambda home: not done.append("down"))
    assert command.stop(argparse.Namespace(stop_runs=True, json=True)) == 0
    assert done == [ARN, "down"]
