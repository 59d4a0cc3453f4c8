"""``mledgeops deploy --rehearse | --synth DIR | --plan | --apply``: stacks in an AWS account."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.exceptions import UnknownRegionError

from fl_runtime.run.aws import client
from pipelines.aws.change_sets import Change
from pipelines.aws.costs import StandingCost, costs_text, standing_costs, totals
from pipelines.aws.deploy import Stacks
from pipelines.aws.endpoints import zones_with_all
from pipelines.aws.kept_keys import kept_keys
from pipelines.aws.lambda_bundle import bundle, code_key
from pipelines.aws.pins import pins
from pipelines.aws.preflight import check_region, check_roles, check_stacks
from pipelines.aws.rehearsal.clients import AccountClients
from pipelines.aws.rehearsal.rehearsal import ACCOUNT, Report, rehearse
from pipelines.aws.rehearsal.rehearsed import read_bundle
from pipelines.aws.rehearsal.rules import RULES
from pipelines.aws.runtime import PYTHON, TAGS
from pipelines.aws.stack_specs import specs, template
from pipelines.aws.wheels import hashed_options, platforms
from pipelines.cli.commands.operate.synth import ASSETS, synthesize, synthesized_text
from pipelines.cli.options import declare
from pipelines.cli.output import answer, table
from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.devices.attachments import attach_again
from pipelines.errors import DeployError, UsageError
from pipelines.run.account import DEFAULT_PREFIX, PREFIX_VARIABLE

PRIVATE, PUBLIC = "private", "public"
"""Values of the parameter ``Network``: with endpoints, and for trials without."""
DEFAULT_REGION = "us-east-1"
"""Of a rehearsal, where neither the command nor the environment names one."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    deploy = commands.add_parser("deploy")
    what = deploy.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--synth",
        type=Path,
        metavar="DIR",
        help="write templates, functions' code and image contexts; calls no AWS",
    )
    what.add_argument(
        "--rehearse",
        nargs="?",
        const="",
        metavar="REGION",
        help="say whether a new account would take it; needs no account",
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
    declare(deploy, run, cloud=False)


def run(arguments: argparse.Namespace) -> int:
    """Deploy, or show what would change, or write the files."""
    parameters = parameters_of(arguments.set)
    if arguments.synth is not None:
        written = synthesize(arguments.synth, parameters)
        answer(arguments.json, written, synthesized_text(arguments.synth))
        return 0
    if arguments.rehearse is not None:
        region = known_region(arguments.rehearse)
        report = rehearsed(region, parameters, _code(parameters))
        answer(arguments.json, msgspec.to_builtins(report), rehearsal_text(report))
        return 0 if report.accepted else 1
    with clouds.use("aws") as cloud:
        cloudformation = client("cloudformation")
        remark = check_region(boto3.Session(), client("iot"), cloud.deployment.region)
        check_stacks(cloudformation, cloud.deployment)
        check_roles(client("iam"), cloudformation, cloud.deployment)
        stacks = Stacks(cloudformation, client("s3"), cloud.deployment.code_bucket)
        keep_network(stacks.parameters(cloud.deployment.stacks[1]), parameters)
        parameters = {**_found(cloud.deployment, stacks, parameters, client), **parameters}
        if arguments.apply:
            make_service_role(client("iam"))
            code = _code(parameters)
            comes_again = stacks.is_new(cloud.deployment.stacks[1])
            changes = _apply(cloud.deployment, stacks, client("s3"), parameters, code)
            if comes_again:
                attach_again(client("iot"), cloud.deployment)
        else:
            changes = _plan(cloud.deployment, stacks, parameters)
        costs = _costs(cloud.deployment, stacks, parameters)
    document = {
        "applied": arguments.apply,
        "changes": [msgspec.to_builtins(change) for change in changes],
        "remark": remark,
        "monthly_usd": totals(costs),
    }
    said = [changes_text(changes, applied=arguments.apply), costs_text(costs), remark]
    answer(arguments.json, document, "\n".join(filter(None, said)))
    return 0


def known_region(given: str) -> str:
    """The region to rehearse in; where none is given the environment's, else the default.

    Raises:
        UsageError: AWS has none of that name.

    """
    region = given or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    try:
        boto3.Session().get_partition_for_region(region)
    except UnknownRegionError as error:
        raise UsageError(
            f"AWS has no region {region!r}: name one such as {DEFAULT_REGION}."
        ) from error
    return region


def rehearsed(
    region: str,
    parameters: dict[str, str],
    code: bytes,
    images: Mapping[str, str] | None = None,
) -> Report:
    """What a new account would make of this deployment. ``images``: Dockerfiles by task, those
    that are shipped where none are given.
    """
    d = Deployment(
        account=ACCOUNT,
        region=region,
        prefix=os.environ.get(PREFIX_VARIABLE, DEFAULT_PREFIX),
    )

    def deploy(clients: AccountClients) -> None:
        formation, s3 = clients.client("cloudformation"), clients.client("s3")
        stacks = Stacks(formation, s3, d.code_bucket, poll_seconds=0.0)
        found = _found(d, stacks, parameters, clients.client)
        make_service_role(clients.client("iam"))
        _apply(d, stacks, s3, {**found, **parameters}, code)

    if images is None:
        images = {file.stem: file.read_text() for file in (ASSETS / "images").glob("*.Dockerfile")}
    return rehearse(d, deploy, bundle=read_bundle(code), images=images)


def rehearsal_text(report: Report) -> str:
    """The findings as a table, and the answer."""
    rows = [
        ["refused" if f.refuses else "remark", f.rule, f.where, f.reason, f.page]
        for f in report.findings
    ]
    found = table(["", "rule", "where", "what", "documentation"], rows) + "\n" if rows else ""
    takes = "takes this" if report.accepted else "does not take this"
    return (
        f"{found}a new account in {report.region} {takes}: {report.resources} resources and "
        f"{len(RULES)} rules"
    )


def _found(
    d: Deployment, stacks: Stacks, given: dict[str, str], client: Callable[[str], Any]
) -> dict[str, str]:
    """What the account says of a stack that is to be created: the keys that an earlier deployment
    left, and the zones in which the tasks reach every service. A stack that exists keeps its own.
    """
    found = {}
    if stacks.is_new(d.stacks[0]):
        found.update(kept_keys(client("kms"), d))
    if "Zones" not in given and stacks.is_new(d.stacks[1]):
        if given.get("Network") == PUBLIC:
            return found  # without endpoints every zone will do
        managed = not given.get("MlflowTrackingUri")
        zones = zones_with_all(client("ec2"), d.region, managed_mlflow=managed)
        found["Zones"] = ",".join(zones)
    return found


def keep_network(there: Mapping[str, str], given: Mapping[str, str]) -> None:
    """A deployment keeps its kind of network: the stacks refer to what depends on it.

    Raises:
        DeployError: Another one is given. ``there``: the stack's parameters; none: no stack yet.

    """
    kind = there.get("Network", PRIVATE)
    if there and given.get("Network", kind) != kind:
        raise DeployError(
            f"This deployment's network is {kind}, and a deployment keeps its network: run "
            "mledgeops destroy, then deploy again; buckets, tables and keys are taken over."
        )


def _costs(d: Deployment, stacks: Stacks, given: dict[str, str]) -> list[StandingCost]:
    """What the deployment costs with these parameters, and those that it keeps."""
    kept = stacks.parameters(d.stacks[1])
    known = {key: value for key, value in kept.items() if key in template("data")["Parameters"]}
    return standing_costs(d, specs(d, {"CodeKey": "", **known, **given}))


def make_service_role(iam: Any) -> None:
    """Create ECS's service-linked role (idempotent): an account that never used ECS lacks it, and
    capacity providers need it.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using-service-linked-roles.html
    """
    try:
        iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    except iam.exceptions.EntityAlreadyExistsException:  # the emulator's code
        return
    except iam.exceptions.InvalidInputException as error:
        # IAM has no code of its own for a role that exists.
        if "has been taken" not in str(error):
            raise


def parameters_of(settings: list[str]) -> dict[str, str]:
    """The stacks' parameters from ``PARAMETER=VALUE`` texts.

    Raises:
        UsageError: A text is not of that form, or sets the prefix.

    """
    parameters = {}
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found or not key:
            raise UsageError(f"--set {setting!r} is not PARAMETER=VALUE.")
        if key == "Prefix":
            raise UsageError(
                f"The prefix is set by {PREFIX_VARIABLE}, so that all commands find the deployment."
            )
        parameters[key] = value
    return parameters


def changes_text(changes: list[Change], *, applied: bool) -> str:
    """Changes of the stacks as a table."""
    rows = [[c.stack, c.action, c.kind, c.resource, c.replacement] for c in changes]
    columns = ["stack", "change", "type", "resource", "replaced"]
    text = table(columns, rows) if rows else "nothing changes"
    done = "\ndeployed; push the images (docs/operate.md) before the first run"
    return text + (done if applied else "")


def _plan(d: Deployment, stacks: Stacks, parameters: dict[str, str]) -> list[Change]:
    """What deploying would change."""
    key, changes = code_key(_code(parameters)), []
    exists = stacks.status(d.stacks[0]) is not None
    for spec in specs(d, {"CodeKey": key, **parameters}):
        if exists or spec.name == d.stacks[0]:
            changes += stacks.plan(spec)
            continue
        # Without the first stack there is no bucket that a change set could take code from.
        changes += [
            Change(stack=spec.name, action="Add", resource=name, kind=resource["Type"])
            for name, resource in spec.template["Resources"].items()
        ]
    return changes


def _apply(
    d: Deployment, stacks: Stacks, s3: Any, parameters: dict[str, str], code: bytes
) -> list[Change]:
    """Create or update the stacks; returns what was changed."""
    changes = []
    for spec in specs(d, {"CodeKey": code_key(code), **parameters}):
        changes += stacks.apply(spec)
        if spec.name == d.stacks[0]:
            # The first stack has the bucket from which the others take the functions' code.
            s3.put_object(Bucket=d.code_bucket, Key=code_key(code), Body=code)
    return changes


def _code(parameters: dict[str, str]) -> bytes:
    """The functions' code with its dependencies, as a ZIP file."""
    with tempfile.TemporaryDirectory() as folder:
        return bundle(_dependencies(Path(folder), parameters.get("Architecture", "ARM64")))


def _dependencies(folder: Path, architecture: str) -> Path:
    """Install the functions' dependencies for Lambda's platform, as the lock pins them.

    Raises:
        DeployError: pip could not install them.

    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", *platforms(architecture, TAGS)]
    command += ["--python-version", PYTHON, "--target", str(folder)]
    with tempfile.TemporaryDirectory() as lists:
        command += hashed_options(Path(lists) / "functions.txt", pins("functions"))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DeployError(
            f"The functions' dependencies cannot be installed for {architecture}: "
            f"{(lines or [done.stderr])[-1]}"
        )
    return folder
