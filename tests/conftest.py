"""Shared fixtures. Tests never read ~/.aws and never leave loopback."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from support.commands import mledgeops
from support.paths import APPS

from pipelines.local.cloud import LocalCloud
from pipelines.local.home import FOREIGN_VARIABLES, Home

# A runner that starts us in the background has Ctrl-C ignored, and so would the programs that tests
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("proof", settings.get_profile("ci"), max_examples=500)
# A mutant is noticed by the first example that fails: no smaller one is looked for.
settings.register_profile(
    "mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("dev", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


ON_ONE_WORKER = {
    "finished-runs": (
        "tests/end_to_end/test_end_to_end",
        "tests/integration/test_dashboard.py",
        "tests/integration/test_least_privilege.py",
    ),
    "cloud": (
        "tests/compatibility/test_local_cloud.py",
        "tests/contract/",
        "tests/integration/test_bad_apps.py",
        "tests/integration/test_deploy.py",
        "tests/integration/test_enrolment.py",
        "tests/integration/test_local_",
    ),
}
"""Test files that share a session's local cloud, by their names' beginnings."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the local cloud."""
    for item in items:
        if "cloud" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cloud)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each session's cloud on one worker; all other files go wherever a worker is idle.

    pytest-xdist 3.8 reads its groups from ids that pytest 9.2 no longer lets it change.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByCloud(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            for group, files in ON_ONE_WORKER.items():
                if nodeid.startswith(files):
                    return group
            return nodeid.split("::")[0]

    return ByCloud(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the tests that look at finished runs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def cloud(home: Path) -> Iterator[LocalCloud]:
    """One local cloud for the session; commands attach to it."""
    with LocalCloud.start(Home(home)) as running:
        yield running


@pytest.fixture
def reached(cloud: LocalCloud) -> Iterator[LocalCloud]:
    """The cloud, with this process's environment pointing to it."""
    with cloud.reached():
        yield cloud


@pytest.fixture(scope="session")
def report(cloud: LocalCloud, home: Path) -> dict:
    """A finished run of the digits app over two proxies, as ``--json`` reports it."""
    assert cloud.info
    done = mledgeops(
        "run",
        str(APPS / "digits"),
        "--devices",
        "3",
        "--devices-per-proxy",
        "2",
        "--json",
        home=home,
    )
    return json.loads(done.stdout)


def _run(home: Path, *options: str, code: int) -> dict:
    return json.loads(
        mledgeops("run", str(APPS / "digits"), *options, "--json", home=home, check=code).stdout
    )


@pytest.fixture(scope="session")
def refused(report: dict, home: Path) -> dict:
    """A run whose model is below the bar; a proxy a device."""
    return _run(
        home,
        "--devices",
        "2",
        "--rounds",
        "1",
        "--devices-per-proxy",
        "1",
        "--minimum-score",
        "0.999",
        "--require",
        "free-memory=1",
        code=1,
    )


@pytest.fixture(scope="session")
def broken(report: dict, home: Path) -> dict:
    """A run in which every device raises; the server serves its cohorts itself."""
    return _run(
        home,
        "--devices",
        "1",
        "--rounds",
        "1",
        "--devices-per-proxy",
        "0",
        "--set",
        "broken-partition=0",
        "--fleet",
        "broken",
        code=1,
    )


@pytest.fixture(scope="session")
def approved(report: dict, home: Path) -> dict:
    """The finished run's model, approved."""
    return json.loads(
        mledgeops(
            "approve", report["model_version"], "--reason", "better", "--json", home=home
        ).stdout
    )
