"""``mledgeops deploy --synth DIR | --plan | --apply`` and ``mledgeops destroy``: the stacks in an
AWS account.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

import pipelines
from pipelines.aws.change_sets import Change
from pipelines.aws.deploy import Stacks
from pipelines.aws.lambda_bundle import bundle, code_key
from pipelines.aws.pins import PARTS, pins
from pipelines.aws.stack_specs import TEMPLATES, StackSpec, specs
from pipelines.aws.wheels import PYTHON, platforms, wheel
from pipelines.cli.output import say, show_json, table
from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.errors import DeployError, UsageError

ASSETS = Path(pipelines.__file__).parent / "aws"


def add_parser(commands: Any) -> None:
    """Declare the commands."""
    deploy = commands.add_parser("deploy", help="deploy to the AWS account of your credentials")
    what = deploy.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--synth",
        type=Path,
        metavar="DIR",
        help="write templates, functions' code and image contexts; calls no AWS",
    )
    what.add_argument("--plan", action="store_true", help="show what would change")
    what.add_argument("--apply", action="store_true", help="create or update the stacks")
    deploy.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="a parameter of the stacks, such as AlarmEmail",
    )
    destroy = commands.add_parser(
        "destroy", help="delete the stacks; buckets, run records, images and models stay"
    )
    destroy.add_argument(
        "--data-too", action="store_true", help="delete the data as well, for good"
    )
    destroy.add_argument("--yes", action="store_true", help="do not ask")
    for parser, function in ((deploy, run), (destroy, destroy_stacks)):
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(function=function)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 when it stands, or when what would change has been shown."""
    parameters = _parameters(arguments.set)
    if arguments.synth is not None:
        return synthesize(arguments.synth, parameters, as_json=arguments.json)
    with clouds.use("aws") as cloud:
        changes = _deploy(cloud.deployment, parameters, apply=arguments.apply)
    if arguments.json:
        show_json(
            {
                "applied": arguments.apply,
                "changes": [msgspec.to_builtins(change) for change in changes],
            }
        )
        return 0
    rows = [[c.stack, c.action, c.kind, c.resource, c.replacement] for c in changes]
    say(
        table(["stack", "change", "type", "resource", "replaced"], rows)
        if rows
        else "nothing changes"
    )
    if arguments.apply:
        say("deployed; push the images (docs/operate.md) before the first run")
    return 0


def synthesize(out: Path, parameters: dict[str, str], *, as_json: bool) -> int:
    """Everything that a deployment needs, in a folder: for review, for other tools, for image
    builds.
    """
    prefix = os.environ.get(clouds.PREFIX_VARIABLE, "mledgeops")
    specs(Deployment(account="000000000000", region="us-east-1", prefix=prefix), parameters)
    (out / "templates").mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        shutil.copyfile(ASSETS / "templates" / f"{name}.json", out / "templates" / f"{name}.json")
    code = bundle()
    (out / "parameters.json").write_text(
        json.dumps({"Prefix": prefix, "CodeKey": code_key(code), **parameters}, indent=1) + "\n"
    )
    (out / "functions.zip").write_bytes(code)
    images = out / "images"
    images.mkdir(exist_ok=True)
    for file in (ASSETS / "images").glob("*.Dockerfile"):
        shutil.copyfile(file, images / file.name)
    for part in PARTS:
        (images / f"{part}.txt").write_text("\n".join(pins(part)) + "\n")
    built = wheel(images)
    templates = [str(out / "templates" / f"{name}.json") for name in TEMPLATES]
    result = {"templates": templates, "functions": str(out / "functions.zip"), "wheel": str(built)}
    if as_json:
        show_json(result)
    else:
        say(
            f"{out}: templates, functions.zip (without dependencies, which --apply adds), and in images/ the contexts of the containers"
        )
        say(
            f"build one with: docker buildx build --platform linux/arm64 -f {images}/proxy.Dockerfile {images}"
        )
    return 0


def destroy_stacks(arguments: argparse.Namespace) -> int:
    """Newest first; what holds data is retained, and named."""
    with clouds.use("aws") as cloud:
        from fl_runtime.run.aws import client

        d = cloud.deployment
        if not arguments.yes:
            raise UsageError(
                f"This deletes the stacks {', '.join(d.stacks)} in account {d.account}, {d.region}: repeat it with --yes."
            )
        stacks = Stacks(client("cloudformation"), client("s3"), d.code_bucket)
        kept = [] if arguments.data_too else _retained(d, client("cloudformation"))
        for name in reversed(d.stacks):
            stacks.delete(name)
        if arguments.data_too:
            _delete_data(d, client)
    show_json({"destroyed": list(d.stacks), "kept": kept}) if arguments.json else say(
        "\n".join(["stacks deleted; kept:", *kept])
    )
    return 0


def _parameters(settings: list[str]) -> dict[str, str]:
    parameters = {}
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found or not key:
            raise UsageError(f"--set {setting!r} is not PARAMETER=VALUE.")
        if key == "Prefix":
            raise UsageError(
                f"The prefix is set by {clouds.PREFIX_VARIABLE}, so that all commands find the deployment."
            )
        parameters[key] = value
    return parameters


def _deploy(d: Deployment, parameters: dict[str, str], *, apply: bool) -> list[Change]:
    from fl_runtime.run.aws import client

    s3 = client("s3")
    stacks = Stacks(client("cloudformation"), s3, d.code_bucket)
    with tempfile.TemporaryDirectory() as folder:
        code = bundle(_dependencies(Path(folder), parameters.get("Architecture", "ARM64")))
    wanted = specs(d, {"CodeKey": code_key(code), **parameters})
    changes: list[Change] = []
    for spec in wanted:
        if not apply and spec.name != d.stacks[0] and stacks.status(d.stacks[0]) is None:
            changes += [
                Change(stack=spec.name, action="Add", resource=name, kind=r["Type"])
                for name, r in spec.template["Resources"].items()
            ]
            continue
        changes += _one(stacks, spec, apply=apply)
        if apply and spec.name == d.stacks[0]:
            s3.put_object(Bucket=d.code_bucket, Key=code_key(code), Body=code)
    return changes


def _one(stacks: Stacks, spec: StackSpec, *, apply: bool) -> list[Change]:
    return stacks.apply(spec) if apply else stacks.plan(spec)


def _dependencies(folder: Path, architecture: str) -> Path:
    """The functions' dependencies, for Lambda's platform, as the lock pins them."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            *platforms(architecture),
            "--python-version",
            PYTHON,
            "--target",
            str(folder),
            *pins("functions"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DeployError(
            f"The functions' dependencies cannot be installed for {architecture}: {(lines or [done.stderr])[-1]}"
        )
    return folder


def _retained(d: Deployment, cloudformation: Any) -> list[str]:
    found = []
    for stack, spec in zip(d.stacks, specs(d, {}), strict=True):
        kept = {
            name
            for name, r in spec.template["Resources"].items()
            if r.get("DeletionPolicy") == "Retain"
        }
        try:
            there = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
        except cloudformation.exceptions.ClientError:
            continue
        found += [
            f"{r['ResourceType']} {r['PhysicalResourceId']}"
            for r in there
            if r["LogicalResourceId"] in kept
        ]
    return found


def _delete_data(d: Deployment, client: Any) -> None:
    """Buckets with all versions, and the table of runs. The key waits its 30 days in KMS, images
    and models are left to their services.
    """
    s3, dynamodb = client("s3"), client("dynamodb")
    for bucket in (d.bucket, d.code_bucket):
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
        for page in pages:
            items = [
                {"Key": v["Key"], "VersionId": v["VersionId"]}
                for kind in ("Versions", "DeleteMarkers")
                for v in page.get(kind, [])
            ]
            if items:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": items, "Quiet": True})
        s3.delete_bucket(Bucket=bucket)
    dynamodb.update_table(TableName=d.runs_table, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=d.runs_table)
