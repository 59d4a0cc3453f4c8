"""``mledgeops component agent | APP``: Greengrass components, written to a folder or published."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from edge.app_bundle import load_app
from edge.greengrass.recipe import Recipe, RecipeError, agent_recipe, app_recipe, encode
from pipelines import clouds
from pipelines.aws.deploy import DeployError
from pipelines.aws.pins import pins
from pipelines.aws.wheels import PYTHON, platforms, wheel
from pipelines.commands.output import say, show_json
from pipelines.run_options import UsageError

AGENT = "agent"


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("component", help="make the agent, or a Flower app, a Greengrass component")
    parser.add_argument("what", help=f"`{AGENT}`, or the Flower app's folder")
    parser.add_argument("--version", dest="component_version", default="0.1.0", help="the component's version (default 0.1.0)")
    parser.add_argument("--out", type=Path, default=Path("component"), help="folder for recipe and artifact (default: component)")
    parser.add_argument("--architecture", default="ARM64", help="of the devices: ARM64 or X86_64 (default ARM64)")
    parser.add_argument("--publish", action="store_true", help="upload the artifact and create the component version in AWS")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Write, and publish when asked."""
    out: Path = arguments.out
    bucket = "BUCKET"
    if not arguments.publish:
        recipe, artifact = _make(arguments, f"s3://{bucket.lower()}/components")
        return _told(arguments, recipe, artifact, "")
    with clouds.use("aws") as cloud:
        from fl_runtime.aws import client

        bucket = cloud.deployment.code_bucket
        recipe, artifact = _make(arguments, f"s3://{bucket}/components")
        client("s3").upload_file(str(artifact), bucket, f"components/{artifact.name}")
        made = client("greengrassv2").create_component_version(inlineRecipe=(out / f"{recipe.component_name}.json").read_bytes())
    return _told(arguments, recipe, artifact, str(made["arn"]))


def _make(arguments: argparse.Namespace, artifacts: str) -> tuple[Recipe, Path]:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.what == AGENT:
        recipe, artifact = agent_recipe(arguments.component_version, artifacts), out / "agent.zip"
    else:
        app = load_app(Path(arguments.what))
        recipe, artifact = app_recipe(app, arguments.component_version, artifacts), out / f"{app.digest()}.zip"
    try:
        data = encode(recipe)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    if arguments.what == AGENT:
        _agent_archive(artifact, arguments.architecture)
    else:
        artifact.write_bytes(app.bundle())
    (out / f"{recipe.component_name}.json").write_bytes(data)
    return recipe, artifact


def _agent_archive(archive: Path, architecture: str) -> None:
    """Wheels of everything that a device needs, for its platform, and the list that pins them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = pins("device")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             *platforms(architecture), "--python-version", PYTHON, "--dest", str(folder), *wanted],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise DeployError(f"The agent's wheels cannot be had for {architecture}: {(lines or [done.stderr])[-1]}")
        wheel(folder)
        (folder / "requirements.txt").write_text("\n".join([*wanted, "mledgeops"]) + "\n")
        part = archive.with_suffix(".part")
        with zipfile.ZipFile(part, "w") as out:  # wheels are compressed already
            for file in sorted(folder.iterdir()):
                out.write(file, file.name)
        shutil.move(part, archive)


def _told(arguments: argparse.Namespace, recipe: Recipe, artifact: Path, arn: str) -> int:
    file = arguments.out / f"{recipe.component_name}.json"
    if arguments.json:
        names = {"component": recipe.component_name, "version": recipe.component_version}
        show_json({**names, "recipe": str(file), "artifact": str(artifact), "arn": arn})
    else:
        say(f"{recipe.component_name} {recipe.component_version}: {file}, {artifact}" + (f"\npublished as {arn}" if arn else ""))
    return 0
