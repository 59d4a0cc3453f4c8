"""The agent as a Greengrass component: recipe, accessControl, IPC limits, and a whole run through
the nucleus's socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.nucleus import Nucleus, core
from fakes.transport import MemoryTransport
from support.paths import APPS, ROOT

from edge.config import DeviceConfig
from edge.greengrass.recipe import RecipeError, agent_recipe, app_recipe, encode, parse
from edge.training.app_bundle import load_app
from edge.transports import TransportError
from edge.transports.greengrass import GreengrassTransport

RECIPE = json.loads(encode(agent_recipe("0.1.0", "s3://bucket/components")))


def with_component(
    folder: Path, monkeypatch: pytest.MonkeyPatch, work: Any
) -> tuple[Nucleus, MemoryTransport]:
    async def main() -> tuple[Nucleus, MemoryTransport]:
        broker = MemoryTransport()
        async with core(folder, broker, RECIPE) as (nucleus, socket):
            for name, value in nucleus.environment(socket).items():
                monkeypatch.setenv(name, value)
            transport = GreengrassTransport()
            try:
                await work(transport, nucleus)
            finally:
                await transport.close()
        return nucleus, broker

    return asyncio.run(main())


def test_messages_pass_both_ways_by_awss_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list = []

    async def work(transport: GreengrassTransport, nucleus: Nucleus) -> None:
        await transport.connect(
            ["fl/f/press-1/command"], lambda topic, payload: heard.append((topic, payload))
        )
        await transport.publish("fl/f/press-1/heartbeat", b'{"body": "idle"}')
        nucleus.deliver("fl/f/press-1/command", b"train")
        nucleus.deliver("fl/f/press-1/command", b"x" * 5000)
        nucleus.deliver("fl/f/press-1/command", b"evaluate")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if len(heard) == 2:
                return

    nucleus, broker = with_component(tmp_path, monkeypatch, work)
    assert heard == [("fl/f/press-1/command", b"train"), ("fl/f/press-1/command", b"evaluate")]
    assert broker.published == [("fl/f/press-1/heartbeat", b'{"body": "idle"}')]
    assert nucleus.dropped == 1


def test_what_the_recipe_does_not_allow_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(transport: GreengrassTransport, _: Nucleus) -> None:
        with pytest.raises(
            TransportError, match="accessControl does not let it subscribe to fl/f/press-2/command"
        ):
            await transport.connect(["fl/f/press-2/command"], lambda *_: None)
        with pytest.raises(
            TransportError, match="accessControl does not let it publish to fl/f/press-2/reply"
        ):
            await transport.publish("fl/f/press-2/reply", b"{}")
        await transport.publish("fl/f/press-1/reply", b"{}")

    _, broker = with_component(tmp_path, monkeypatch, work)
    assert [topic for topic, _ in broker.published] == ["fl/f/press-1/reply"]


def test_long_messages_never_reach_the_nucleus_and_a_burst_stays_below_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(transport: GreengrassTransport, _: Nucleus) -> None:
        await transport.connect([], lambda *_: None)
        with pytest.raises(TransportError, match="4097 bytes"):
            await transport.publish("fl/f/press-1/reply", b"x" * 4097)
        await asyncio.gather(
            *(transport.publish("fl/f/press-1/reply", b"x" * 4096) for _ in range(60))
        )

    nucleus, broker = with_component(tmp_path, monkeypatch, work)
    assert len(broker.published) == 60
    assert nucleus.refused == []
    assert nucleus.most_at_once <= 8


def test_without_a_nucleus_the_agent_says_so(tmp_path: Path) -> None:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_GG", "SVCUID", "AWS_IOT"))
    }
    run = [sys.executable, "-m", "edge.agent", "--greengrass", "--home", str(tmp_path)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "AWS_IOT_THING_NAME is not set" in done.stderr) == (2, True)
    done = subprocess.run(
        run,
        env={**environment, "AWS_IOT_THING_NAME": "d"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "not a Greengrass component" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(Surprise=1), "Surprise"),
        (lambda r: r.update(ComponentVersion="1"), "ComponentVersion"),
        (lambda r: r.update(Manifests=[]), "Manifests"),
        (lambda r: r["Manifests"][0]["Artifacts"][0].update(URI="http://x"), "URI"),
        (lambda r: r["Manifests"][0]["Lifecycle"].update(boot={}), "boot"),
        (lambda r: r.pop("ComponentName"), "ComponentName"),
        (
            lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(Script="{configuratoin:/fleet}"),
            "configuratoin",
        ),
        (
            lambda r: next(
                iter(r["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"].values())
            )["com.mledgeops.Agent:mqttproxy:1"].pop("resources"),
            "resources",
        ),
    ],
)
def test_a_recipe_that_greengrass_would_refuse_is_refused_here(change: Any, said: str) -> None:
    recipe = json.loads(json.dumps(RECIPE))
    change(recipe)
    with pytest.raises(RecipeError, match=said):
        parse(json.dumps(recipe).encode())


def test_an_app_is_a_component_that_puts_its_bundle_where_the_agent_looks() -> None:
    app = load_app(APPS / "digits")
    recipe = json.loads(encode(app_recipe(app, "1.2.3", "s3://bucket/components")))
    assert recipe["ComponentName"] == "com.mledgeops.app.digits"
    assert recipe["Manifests"][0]["Artifacts"] == [
        {"URI": f"s3://bucket/components/{app.digest()}.zip", "Unarchive": "ZIP"}
    ]
    assert recipe["Manifests"][0]["Platform"] == {"os": "linux", "runtime": "*"}
    assert f"/data/apps/{app.digest()}" in recipe["Manifests"][0]["Lifecycle"]["install"]["Script"]


def test_the_install_script_of_an_app_leaves_it_where_the_agent_finds_it(tmp_path: Path) -> None:
    import zipfile

    app = load_app(APPS / "digits")
    script = json.loads(encode(app_recipe(app, "1.0.0", "s3://bucket/components")))["Manifests"][0][
        "Lifecycle"
    ]["install"]["Script"]
    unpacked = tmp_path / "artifacts" / app.digest()
    (tmp_path / "bundle.zip").write_bytes(app.bundle())
    zipfile.ZipFile(tmp_path / "bundle.zip").extractall(unpacked)
    script = script.replace("{kernel:rootPath}", str(tmp_path / "root")).replace(
        "{artifacts:decompressedPath}", str(tmp_path / "artifacts")
    )
    for _ in range(2):
        subprocess.run(["sh", "-ec", script], check=True)
    apps = tmp_path / "root" / "work" / "com.mledgeops.Agent" / "data" / "apps"
    assert sorted(path.name for path in apps.iterdir()) == [".site", app.digest()]
    assert load_app(apps / app.digest()).digest() == app.digest()


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
        "agent.zip is not there"
        in install_with(str(tmp_path / "x" / "agent.zip"), str(tmp_path / "claims")).stderr
    )
    assert (
        "just one claim file"
        in install_with(str(tmp_path / "agent.zip"), str(tmp_path / "claims")).stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.zip", "claims"]


def test_a_component_needs_no_certificate_of_its_own(tmp_path: Path) -> None:
    config = DeviceConfig(fleet="f", device="d", home=str(tmp_path), transport="greengrass")
    assert config.certificate == ""
