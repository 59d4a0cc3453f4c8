"""``mledgeops component agent | APP``: Greengrass components, written to a folder or published."""

from __future__ import annotations

import argparse
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from edge.greengrass.recipe import NOBODY, Recipe, RecipeError, agent_recipe, app_recipe, encode
from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import FlowerApp, load_app
from pipelines.aws.pins import pins
from pipelines.aws.wheels import archive, download, wheel
from pipelines.cli.output import say, show_json
from pipelines.desk import clouds
from pipelines.devices.provisioning import trusted_keys
from pipelines.errors import UsageError

AGENT = "agent"
VERSION = metadata.version("mledgeops")


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "component", help="make the agent, or a Flower app, a Greengrass component"
    )
    parser.add_argument("what", help=f"`{AGENT}`, or the Flower app's folder")
    parser.add_argument(
        "--version",
        dest="component_version",
        default=VERSION,
        help=f"the component's version (default {VERSION})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("component"),
        help="folder for recipe and artifact (default: component)",
    )
    parser.add_argument(
        "--architecture", default="ARM64", help="of the devices: ARM64 or X86_64 (default ARM64)"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="upload the artifact and create the component version in AWS",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Write, and publish when asked."""
    bucket = "BUCKET"
    if not arguments.publish:
        recipe, made = _make(arguments, f"s3://{bucket.lower()}/components")
        return _told(arguments, recipe, made, "")
    with clouds.use("aws") as cloud:
        from fl_runtime.run.aws import client

        bucket = cloud.deployment.code_bucket
        trust = TrustedKeys(**msgspec.json.decode(trusted_keys(client("kms"), cloud.deployment)))
        recipe, made = _make(arguments, f"s3://{bucket}/components", trust)
        for artifact in made:
            client("s3").upload_file(str(artifact), bucket, f"components/{artifact.name}")
        answer = client("greengrassv2").create_component_version(
            inlineRecipe=(arguments.out / f"{recipe.component_name}.json").read_bytes()
        )
    return _told(arguments, recipe, made, str(answer["arn"]))


def _make(
    arguments: argparse.Namespace, artifacts: str, trust: TrustedKeys = NOBODY
) -> tuple[Recipe, list[Path]]:
    out: Path = arguments.out
    if arguments.what == AGENT:
        app, own = None, []
        recipe = agent_recipe(arguments.component_version, artifacts, trust)
    else:
        app = load_app(Path(arguments.what))
        own = own_dependencies(app)
        recipe = app_recipe(app, arguments.component_version, artifacts, wheels=bool(own))
    try:
        data = encode(recipe)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    if app is None:
        made = [_agent_archive(out / "agent.zip", arguments.architecture)]
    else:
        made = [out / f"{app.digest()}.zip"]
        made[0].write_bytes(app.bundle())
        made += (
            [_wheels_archive(out / f"{app.digest()}-wheels.zip", arguments.architecture, own)]
            if own
            else []
        )
    (out / f"{recipe.component_name}.json").write_bytes(data)
    return recipe, made


def own_dependencies(app: FlowerApp) -> list[str]:
    """What an app needs that the agent does not bring; raises UsageError for a requirement that is
    none.
    """
    brought = {pin.split("==")[0] for pin in pins("device")}
    try:
        wanted = {canonicalize_name(Requirement(text).name): text for text in app.dependencies}
    except InvalidRequirement as error:
        raise UsageError(
            f"{app.folder / 'pyproject.toml'} has a dependency that pip cannot read: {error}."
        ) from error
    return [text for name, text in wanted.items() if name not in brought]


def _agent_archive(target: Path, architecture: str) -> Path:
    """Wheels of everything that a device needs, for its platform, and the list that pins them."""
    with tempfile.TemporaryDirectory() as name:
        folder, wanted = Path(name), pins("device")
        download(folder, architecture, wanted)
        wheel(folder)
        (folder / "requirements.txt").write_text("\n".join([*wanted, "mledgeops"]) + "\n")
        archive(folder, target)
    return target


def _wheels_archive(target: Path, architecture: str, requirements: list[str]) -> Path:
    """An app's own dependencies, all the way down, as far as the agent does not bring them;
    versions as the lock has them.
    """
    brought = pins("device")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        download(folder, architecture, requirements, constraints=brought)
        kept = []
        for file in sorted(folder.glob("*.whl")):
            project, version, *_ = parse_wheel_filename(file.name)
            if f"{project}=={version}" in brought:
                file.unlink()
            else:
                kept.append(f"{project}=={version}")
        (folder / "requirements.txt").write_text("\n".join(kept) + "\n")
        archive(folder, target)
    return target


def _told(arguments: argparse.Namespace, recipe: Recipe, made: list[Path], arn: str) -> int:
    file = arguments.out / f"{recipe.component_name}.json"
    if arguments.json:
        names = {"component": recipe.component_name, "version": recipe.component_version}
        show_json(
            {
                **names,
                "recipe": str(file),
                "artifacts": [str(artifact) for artifact in made],
                "arn": arn,
            }
        )
    else:
        say(
            f"{recipe.component_name} {recipe.component_version}: {file}, {', '.join(map(str, made))}"
            + (f"\npublished as {arn}" if arn else "")
        )
    return 0
