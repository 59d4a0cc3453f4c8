"""The home folder: what runs in it, what leads to it, and that one process holds a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from botocore.utils import get_environ_proxies

from pipelines.local.cloud import LocalCloud, stop_running
from pipelines.local.emulator import set_aside_orphans
from pipelines.local.home import FOREIGN_VARIABLES, CloudInfo, Home, LocalCloudError, enter, locked
from pipelines.local.processes import identity

INFO = CloudInfo(
    pid=os.getpid(),
    gateway_port=1,
    mqtt_port=2,
    sagemaker_port=3,
    started_at=4.0,
    process=identity(os.getpid()),
)


def test_the_process_that_got_a_dead_clouds_id_is_not_ended(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for process in ("another boot 1", ""):  # "" as in files of 0.4
            stale = msgspec.structs.replace(INFO, pid=stranger.pid, process=process)
            home.info_file.write_bytes(msgspec.json.encode(stale))
            assert home.info() is None
            assert stop_running(home) is False
        assert stranger.poll() is None
        stranger.kill()


def test_a_running_cloud_is_found_and_a_dead_ones_file_counts_as_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert LocalCloud.attach(home) is None
    home.info_file.write_bytes(msgspec.json.encode(INFO))
    attached = LocalCloud.attach(home)
    assert attached is not None
    assert attached.info == INFO
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    home.info_file.write_bytes(msgspec.json.encode(msgspec.structs.replace(INFO, pid=done.pid)))
    assert home.info() is None
    assert stop_running(home) is False
    home.info_file.write_text("{")
    assert home.info() is None


def test_the_environment_leads_to_this_cloud_and_hides_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOREIGN_VARIABLES:
        monkeypatch.setenv(name, "mine")
    cloud = LocalCloud(Home(tmp_path), INFO, None)
    before = dict(os.environ)
    with cloud.reached():
        assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
        assert os.environ["MLEDGEOPS_BUCKET"] == cloud.deployment.bucket
        assert not set(FOREIGN_VARIABLES) & set(os.environ)
    assert dict(os.environ) == before


def test_entering_drops_foreign_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"AWS_PROFILE": "mine", "HOME": "/home"})
    enter({"AWS_REGION": "here"})
    assert os.environ == {"HOME": "/home", "AWS_REGION": "here"}


def test_the_default_home_is_the_variables_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path / "mine"))
    assert Home.default().root == tmp_path / "mine"
    monkeypatch.delenv("MLEDGEOPS_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home.default().root == tmp_path / ".mledgeops"


def test_a_lock_is_held_once_and_freed_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "lock"
    with (
        locked(file, "taken"),
        pytest.raises(LocalCloudError, match="taken"),
        locked(file, "taken"),
    ):
        pass
    with locked(file, "taken"):
        pass


def test_objects_that_no_stack_owns_are_set_aside_and_all_others_stay(tmp_path: Path) -> None:
    """They are left by a home's first cloud when the disk was full, and no new one could start."""
    home = Home(tmp_path)
    set_aside_orphans(home)
    for content in ("first", "second"):
        (tmp_path / "s3").mkdir()
        (tmp_path / "s3" / "object").write_text(content)
        set_aside_orphans(home)
        assert not (tmp_path / "s3").exists()
        assert (tmp_path / "s3.orphaned" / "object").read_text() == content
    (tmp_path / "s3").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "cloudformation.json").write_text("{}")
    set_aside_orphans(home)
    assert (tmp_path / "s3").is_dir()


def test_loopback_is_reached_past_a_companys_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "intranet.example, localhost")
    for name, value in Home(tmp_path).environment(INFO).items():
        monkeypatch.setenv(name, value)
    assert get_environ_proxies(os.environ["AWS_ENDPOINT_URL"]) == {}
    assert get_environ_proxies("http://intranet.example") == {}
    assert get_environ_proxies("http://elsewhere.example") != {}
