"""The process that emulates AWS (ministack, patched): started with its settings, and awaited."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from pipelines.local.forks.client import VARIABLE as FORKS
from pipelines.local.home import ACCOUNT, REGION, CloudInfo, Home, LocalCloudError
from pipelines.local.processes import spawn

MODULE = "pipelines.local.emulators.ministack"
READY_SECONDS = 60.0


def start_emulator(home: Home, info: CloudInfo) -> subprocess.Popen[bytes]:
    """Start the emulator on the ports of ``info``, with its state in the home folder."""
    set_aside_orphans(home)
    unpacked = home.root / "tmp"  # functions' code, also that of earlier clouds
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(info.gateway_port),
        "IOT_MTLS_PORT": str(info.mqtt_port),
        "AUTH": "true",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home.root / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home.root / "s3"),
        "LOG_LEVEL": "INFO",
        # Without Docker it leaves ECS tasks to our own agent.
        "DOCKER_HOST": "unix:///nonexistent",
        "TMPDIR": str(unpacked),
        "MLEDGEOPS_CALLS": str(home.calls_file),
        FORKS: info.forks,
        # Lambda functions inherit these: they lead to the services that ministack is not.
        **home.shared_environment(),
        "AWS_ENDPOINT_URL_SAGEMAKER": f"http://127.0.0.1:{info.sagemaker_port}",
    }
    return spawn(MODULE, [], environment, emulator_log(home))


def set_aside_orphans(home: Home) -> None:
    """Move objects out of the way that belong to no stack: the first cloud of this home ended, by a
    full disk or a power cut, before the emulator had saved its state. Objects are on the disk at
    once, and a new stack would be refused for ever because its bucket is there.
    """
    objects, stacks = home.root / "s3", home.root / "state" / "cloudformation.json"
    if objects.is_dir() and not stacks.is_file():
        aside = home.root / "s3.orphaned"
        shutil.rmtree(aside, ignore_errors=True)
        objects.rename(aside)


def await_emulator(process: subprocess.Popen[bytes], home: Home, info: CloudInfo) -> None:
    """Wait until the emulator answers.

    Raises:
        LocalCloudError: It ended, or did not answer in time.

    """
    health = f"http://127.0.0.1:{info.gateway_port}/_ministack/health"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(health, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise LocalCloudError(f"The emulator did not start: see {emulator_log(home)}.")


def emulator_log(home: Home) -> Path:
    """The emulator's log file."""
    return home.logs / "ministack.log"
