"""What ``mledgeops doctor`` looks at: this machine, the local cloud, AWS, the fleet.

Each look gives findings and raises nothing: what is broken is what is to be told.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec
from packaging.requirements import Requirement

from edge.errors import MLEdgeOpsError
from fl_runtime.run.aws import client
from fl_runtime.run.devices import DeviceTable
from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home
from pipelines.local.mlflow_store import check_database
from pipelines.local.processes import port_in_use
from pipelines.local.sagemaker.executions import ExecutionFiles

Level = Literal["ok", "warning", "failure"]
DISTRIBUTION = "mledgeops"
NEEDED_BYTES, COMFORTABLE_BYTES = 256 << 20, 2 << 30
"""Free space below which a run fails, and below which it may."""
COMFORTABLE_MEMORY = 2 << 30
"""A training process with torch takes half a gibibyte; a run of four devices has four."""
DESCRIPTORS = 1024
"""Files and sockets that a process may have open: a process with many devices has one each."""
FRESH_SECONDS = 60.0


class Symptom(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: Level
    what: str
    says: str
    mend: str = ""
    """A command or an act that mends it; empty where nothing needs to be mended."""


def environment(home: Home) -> Iterator[Symptom]:
    """This machine: Python, packages, room, memory, open files."""
    yield Symptom("ok", "Python", platform.python_version())
    yield _packages()
    yield _room(home)
    yield _memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < DESCRIPTORS:
        mend = f"ulimit -n {DESCRIPTORS if hard < 0 else min(hard, DESCRIPTORS)}"
        yield Symptom("warning", "open files", f"at most {soft} a process", mend)


def _packages() -> Symptom:
    wrong = []
    for line in metadata.requires(DISTRIBUTION) or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found} is not {needed.specifier}")
    if wrong:
        mend = "pip install --no-deps --require-hashes -r requirements.lock"
        return Symptom("failure", "packages", "; ".join(wrong), mend)
    return Symptom("ok", "packages", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")


def _room(home: Home) -> Symptom:
    folder = next(path for path in (home.root, *home.root.parents) if path.is_dir())
    if not os.access(folder, os.W_OK):
        mend = "set MLEDGEOPS_HOME to a folder of yours"
        return Symptom("failure", "home", f"{folder} cannot be written", mend)
    free = shutil.disk_usage(folder).free
    says = f"{free / 2**30:.1f} GiB free for {home.root}"
    mend = "make room, or set MLEDGEOPS_HOME to a folder on another disk"
    if free < NEEDED_BYTES:
        return Symptom("failure", "disk", says, mend)
    if free < COMFORTABLE_BYTES:
        return Symptom("warning", "disk", says, mend)
    return Symptom("ok", "disk", says)


def _memory() -> Symptom:
    try:
        lines = dict(
            line.split(":", 1)
            for line in Path("/proc/meminfo").read_text().splitlines()
            if ":" in line
        )
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Symptom("ok", "memory", "not known on this system")
    says = f"{free / 2**30:.1f} GiB available"
    if free < COMFORTABLE_MEMORY:
        return Symptom("warning", "memory", says, "end other programs, or run fewer devices")
    return Symptom("ok", "memory", says)


def local_cloud(home: Home) -> Iterator[Symptom]:
    """The local cloud of this home, its database, and runs that a dead cloud left."""
    cloud = LocalCloud.attach(home)
    if cloud is None:
        yield Symptom("ok", "local cloud", f"none is running in {home.root}; a run starts one")
    else:
        silent = [
            port
            for port in (cloud.info.gateway_port, cloud.info.mqtt_port)
            if not port_in_use(port)
        ]
        if silent:
            says = f"process {cloud.info.pid} runs, but nothing answers on port {silent[0]}"
            yield Symptom("failure", "local cloud", says, "mledgeops local down")
        else:
            yield Symptom("ok", "local cloud", f"process {cloud.info.pid} in {home.root}")
    if not home.root.is_dir():
        return
    try:
        check_database(home.mlflow_file, free=True)
    except MLEdgeOpsError as error:
        yield Symptom("failure", "MLflow", str(error), "see docs/operate.md")
    left = ExecutionFiles(home.executions).under_way() if home.executions.is_dir() else []
    if left and cloud is None:
        says = f"{len(left)} left by a cloud that ended in mid-run"
        yield Symptom("warning", "runs", says, "mledgeops reconcile")


def aws() -> Iterator[Symptom]:
    """The AWS account of the credentials, and what is deployed in it."""
    cloud = clouds.AwsCloud.of_environment()
    deployment = cloud.deployment
    yield Symptom("ok", "AWS", f"account {deployment.account}, {deployment.region}")
    yield from _stacks(deployment)


def _stacks(deployment: Deployment) -> Iterator[Symptom]:
    from botocore.exceptions import ClientError

    cloudformation = client("cloudformation")
    for name in deployment.stacks:
        try:
            state = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        except ClientError as error:
            mend = "mledgeops deploy --plan, then mledgeops deploy --apply"
            yield Symptom("failure", f"stack {name}", error.response["Error"]["Message"], mend)
            return
        if state in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
            yield Symptom("ok", f"stack {name}", state)
        elif state.endswith("_IN_PROGRESS"):
            yield Symptom("warning", f"stack {name}", state, "wait, and ask again")
        else:
            yield Symptom("failure", f"stack {name}", state, "mledgeops deploy --apply")


def fleet(deployment: Deployment, clock: Callable[[], float] = time.time) -> Iterator[Symptom]:
    """The devices that were heard of, by fleet; the environment leads to their cloud."""
    now = clock()
    fleets: dict[str, list[bool]] = {}
    for device in DeviceTable(client("dynamodb"), deployment.devices_table).all():
        fleets.setdefault(device.fleet, []).append(device.is_online(now, FRESH_SECONDS))
    if not fleets:
        mend = "mledgeops devices expect NAME --fleet FLEET"
        yield Symptom("warning", "fleet", "no device has been heard of yet", mend)
    for name, online in sorted(fleets.items()):
        says = f"{sum(online)} of {len(online)} devices online"
        if any(online):
            yield Symptom("ok", f"fleet {name}", says)
        else:
            yield Symptom(
                "warning", f"fleet {name}", says, "mledgeops fleet shows when each was seen"
            )


def looked_at(what: str, mend: str, look: Callable[[], Iterator[Symptom]]) -> list[Symptom]:
    """The findings of a look; what it raises is one of them."""
    found: list[Symptom] = []
    try:
        found.extend(look())
    except MLEdgeOpsError as error:
        found.append(Symptom("failure", what, str(error), mend))
    except Exception as error:  # noqa: BLE001  # a service that fails is what the doctor is asked for
        found.append(Symptom("failure", what, f"{type(error).__name__}: {error}", mend))
    return found
