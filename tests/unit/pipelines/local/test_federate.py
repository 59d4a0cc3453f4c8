"""A run whose cloud ends under it is told in one sentence."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipelines.local import federate as module
from pipelines.local.federate import Progress, federate
from pipelines.local.home import Home, LocalCloudError


class Runner:
    """Starts a run, and gets no answer from then on."""

    def start(self, plan: Any) -> Any:
        return SimpleNamespace(arn="arn")

    def follow(self, started: Any, check: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def run(monkeypatch: pytest.MonkeyPatch, cloud: Any) -> None:
    monkeypatch.setattr(module, "running_fleet", lambda *_: contextlib.nullcontext(None))
    plan: Any = SimpleNamespace(fleet="f", devices=1, app=None)
    runner: Any = Runner()
    federate(cloud, SimpleNamespace(), runner, plan, Progress())  # type: ignore[arg-type]


def test_the_end_of_the_cloud_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LocalCloudError, match=r"ended while the run was under way.*--resume"):
        run(monkeypatch, SimpleNamespace(home=Home(tmp_path)))


def test_a_fault_of_a_running_cloud_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    home = SimpleNamespace(info=lambda: "running", mlflow_file=Path("none"))
    with pytest.raises(EndpointConnectionError):
        run(monkeypatch, SimpleNamespace(home=home))
