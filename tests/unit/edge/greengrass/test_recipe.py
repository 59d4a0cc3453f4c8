"""Recipes that Greengrass accepts, and an install script that works."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.paths import APPS

from edge.greengrass.recipe import RecipeError, agent_recipe, app_recipe, encode, parse
from edge.training.app_bundle import load_app

RECIPE = json.loads(encode(agent_recipe("0.1.0", "s3://bucket/components")))


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
