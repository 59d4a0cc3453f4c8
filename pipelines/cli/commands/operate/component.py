"""``mledgeops component agent | APP``: Greengrass components, written to a folder or published."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from edge.greengrass.recipe import NOBODY
from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import load_app
from fl_runtime.run.aws import client
from pipelines.cli.commands.operate.component_files import (
    ComponentFiles,
    ComponentTarget,
    write_agent,
    write_app,
)
from pipelines.cli.options import declare
from pipelines.cli.output import answer
from pipelines.desk import clouds
from pipelines.devices.provisioning import trusted_keys

AGENT = "agent"
VERSION = metadata.version("mledgeops")
UNPUBLISHED = "s3://bucket/components"
"""Where the recipe says that its artifacts are, when nothing is published."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("component")
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
    declare(parser, run, cloud=False)


def run(arguments: argparse.Namespace) -> int:
    """Write the component; with ``--publish`` also create its version in AWS."""
    if not arguments.publish:
        return _show(arguments, _write(arguments, UNPUBLISHED, NOBODY), arn="")
    with clouds.use("aws") as cloud:
        bucket, s3 = cloud.deployment.code_bucket, client("s3")
        keys = msgspec.json.decode(trusted_keys(client("kms"), cloud.deployment))
        folder = artifact_folder(arguments.component_version, arguments.architecture)
        written = _write(arguments, f"s3://{bucket}/{folder}", TrustedKeys(**keys))
        for artifact in written.artifacts:
            s3.upload_file(str(artifact), bucket, f"{folder}/{artifact.name}")
        created = client("greengrassv2").create_component_version(
            inlineRecipe=written.file.read_bytes()
        )
    return _show(arguments, written, arn=str(created["arn"]))


def artifact_folder(version: str, architecture: str) -> str:
    """S3 prefix of a component version's artifacts: those of earlier versions stay as they are."""
    return f"components/{version}-{architecture}"


def _write(arguments: argparse.Namespace, place: str, trust: TrustedKeys) -> ComponentFiles:
    target = ComponentTarget(
        version=arguments.component_version,
        architecture=arguments.architecture,
        place=place,
        out=arguments.out,
    )
    if arguments.what == AGENT:
        return write_agent(target, trust)
    return write_app(target, load_app(Path(arguments.what)))


def _show(arguments: argparse.Namespace, written: ComponentFiles, arn: str) -> int:
    name, version = written.recipe.component_name, written.recipe.component_version
    artifacts = [str(artifact) for artifact in written.artifacts]
    document = {
        "component": name,
        "version": version,
        "recipe": str(written.file),
        "artifacts": artifacts,
        "arn": arn,
    }
    published = f"\npublished as {arn}" if arn else ""
    text = f"{name} {version}: {written.file}, {', '.join(artifacts)}{published}"
    answer(arguments.json, document, text)
    return 0
