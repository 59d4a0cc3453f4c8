"""A device as the systemd installer sets it up: size, enrolment, a run through Greengrass."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.nucleus import core
from support.commands import mledgeops
from support.paths import APPS, ROOT

from edge.agent.heartbeat import last_will
from edge.config import load_config
from edge.greengrass.recipe import agent_recipe, encode
from edge.training.app_bundle import load_app
from edge.transports.mqtt import MqttTransport
from fl_runtime.run.aws import client
from pipelines.local.cloud import LocalCloud


@pytest.fixture(scope="module")
def installed(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A device set up by the systemd installer, below another root: its programs, and its state.
    Nothing of this checkout is on its path.
    """
    folder = tmp_path_factory.mktemp("device")
    home = Path(cloud.home.root)
    machine = {"x86_64": "X86_64", "aarch64": "ARM64"}[platform.machine()]
    mledgeops(
        "component",
        "agent",
        "--architecture",
        machine,
        "--out",
        str(folder / "component"),
        home=home,
    )
    mledgeops(
        "component",
        str(APPS / "digits"),
        "--architecture",
        machine,
        "--out",
        str(folder / "component"),
        home=home,
    )
    state = folder / "root" / "var" / "lib" / "mledgeops"
    mledgeops(
        "devices",
        "expect",
        "press-7",
        "--fleet",
        "lab",
        "--out",
        str(folder / "claims"),
        "--device-home",
        str(state),
        home=home,
    )
    app = folder / "component" / f"{load_app(APPS / 'digits').digest()}.zip"
    script = [
        "sh",
        str(ROOT / "edge" / "systemd" / "install.sh"),
        str(folder / "component" / "agent.zip"),
        str(folder / "claims"),
        str(app),
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "MLEDGEOPS_ROOT": str(folder / "root"),
        "MLEDGEOPS_PYTHON": sys.executable,
    }
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "root" / "opt" / "mledgeops" / "venv", state


@pytest.mark.proof
def test_an_installed_device_is_small_enrolled_and_has_no_torch(
    installed: tuple[Path, Path], reached: LocalCloud
) -> None:
    venv, state = installed
    size = sum(
        file.stat().st_size for file in venv.rglob("*") if file.is_file() and not file.is_symlink()
    )
    assert size < 200e6, f"{size / 1e6:.0f} MB"
    assert not list(venv.rglob("torch"))
    assert load_config(state / "device.json").device == "press-7"
    assert len(client("iot").list_thing_principals(thingName="press-7")["principals"]) == 1
    assert not (state / "claim").exists()
    assert sorted(path.name for path in (state / "apps").iterdir()) == [
        ".site",
        load_app(APPS / "digits").digest(),
    ]


@pytest.mark.proof
def test_a_run_goes_through_a_nucleus_and_by_the_aws_way(
    reached: LocalCloud, home: Path, installed: tuple[Path, Path], tmp_path: Path
) -> None:
    """An installed agent trains through IPC only, and ``--cloud aws`` finds deployment and devices
    by its credentials and endpoints, as on AWS.
    """
    venv, state = installed
    recipe = json.loads(encode(agent_recipe("0.1.0", "s3://bucket/components")))
    config = load_config(state / "device.json")
    # A core's trust.json names the bucket's addresses on AWS; the emulator's are on this machine.
    keys = json.loads(config.trust_file.read_text())
    keys["addresses"].append("http://127.0.0.1/")
    config.trust_file.write_text(json.dumps(keys))

    async def main() -> dict:
        broker = MqttTransport(config, will=last_will(config))
        async with core(tmp_path, broker, recipe, config.device) as (nucleus, socket):
            shadow = f"$aws/things/{config.device}/shadow"
            await broker.connect(
                [
                    f"fl/lab/{config.device}/command",
                    f"{shadow}/update/delta",
                    f"{shadow}/get/accepted",
                ],
                nucleus.deliver,
            )
            component = await asyncio.create_subprocess_exec(
                venv / "bin" / "mledgeops-agent",
                "--greengrass",
                "--fleet",
                "lab",
                "--home",
                str(state),
                "--heartbeat-seconds",
                "1",
                "--node-config",
                '{"partition-id": 0, "num-partitions": 3}',
                env={
                    "PATH": "/usr/bin:/bin",
                    "OMP_NUM_THREADS": "1",
                    **nucleus.environment(socket),
                },
                cwd=tmp_path,
                stderr=(tmp_path / "agent.log").open("wb"),
            )
            try:
                report = await asyncio.to_thread(run_as_on_aws)
            finally:
                component.terminate()
                await component.wait()
                await broker.close()
            assert (nucleus.refused, nucleus.dropped) == ([], 0)
            return report

    def run_as_on_aws() -> dict:
        options = ["--cloud", "aws", "--fleet", "lab", "--devices", "1", "--rounds", "2", "--json"]
        return json.loads(mledgeops("run", str(APPS / "digits"), *options, home=home).stdout)

    report = asyncio.run(main())
    assert report["status"] == "Succeeded"
    assert [r["participants"] for r in report["rounds"]] == [1, 1]
