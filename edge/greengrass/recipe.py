"""Recipes of the Greengrass V2 components: the agent, and one for each Flower app.

https://docs.aws.amazon.com/greengrass/v2/developerguide/component-recipe-reference.html. The
structs below are that reference
as far as these recipes use it: :func:`parse` refuses a field that AWS does not know.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import FlowerApp

AGENT = "com.mledgeops.Agent"
APP_PREFIX = "com.mledgeops.app"
MQTT_PROXY = "aws.greengrass.ipc.mqttproxy"
PYTHON = "python3.11"
NUCLEUS = ">=2.6.0 <3.0.0"
NOBODY = TrustedKeys()
"""From 2.6.0 on, recipe variables may stand in ``accessControl``."""

Text = Annotated[str, msgspec.Meta(min_length=1)]
Version = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(-[0-9A-Za-z.-]{1,64})?$"
    ),
]
ComponentName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9._-]{1,128}$")]


class _Part(
    msgspec.Struct, rename="pascal", forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Field names as AWS writes them."""


class Dependency(_Part):
    """A component that this one needs."""

    version_requirement: Text
    dependency_type: Literal["HARD", "SOFT"] = "HARD"


class Step(_Part):
    """One step of the life of a component."""

    script: Text = msgspec.field(name="Script")
    timeout: Annotated[int, msgspec.Meta(gt=0)] = msgspec.field(name="Timeout", default=120)
    requires_privilege: bool = msgspec.field(name="RequiresPrivilege", default=False)
    setenv: dict[str, str] = msgspec.field(name="Setenv", default_factory=dict)


class Lifecycle(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """``install`` prepares, ``run`` stays, ``startup`` and ``shutdown`` for what does not,
    ``recover`` after a crash.
    """

    install: Step | None = None
    run: Step | None = None
    startup: Step | None = None
    shutdown: Step | None = None
    recover: Step | None = None


class Artifact(_Part):
    """A file from S3 that the core fetches with its own credentials, checked by the digest kept in
    the cloud.
    """

    uri: Annotated[str, msgspec.Meta(pattern=r"^s3://[a-z0-9.-]{3,63}/.+$")] = msgspec.field(
        name="URI"
    )
    unarchive: Literal["NONE", "ZIP"] = "NONE"


class Platform(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a manifest applies."""

    os: Literal["linux", "darwin", "windows", "all"]
    architecture: Literal["amd64", "arm", "aarch64", "x86", "all"] | None = None
    runtime: str | None = None
    """``*`` lets nucleus-lite run the component as well."""


class RecipeManifest(_Part):
    """What a platform gets."""

    platform: Platform
    lifecycle: Lifecycle
    artifacts: list[Artifact] = []


class Configuration(_Part):
    """Defaults; a deployment may change them."""

    default_configuration: dict[str, Any]


class Recipe(_Part):
    """A component version."""

    recipe_format_version: Literal["2020-01-25"]
    component_name: ComponentName
    component_version: Version
    component_description: str
    component_publisher: str
    component_configuration: Configuration
    manifests: Annotated[list[RecipeManifest], msgspec.Meta(min_length=1)]
    component_dependencies: dict[str, Dependency] = {}
    component_type: Literal["aws.greengrass.generic"] = "aws.greengrass.generic"


class RecipeError(ValueError):
    """A recipe that Greengrass would refuse, with the place."""


def parse(data: bytes) -> Recipe:
    """Read and check a recipe; raises RecipeError."""
    try:
        recipe = msgspec.json.decode(data, type=Recipe)
    except msgspec.DecodeError as error:
        raise RecipeError(f"The recipe is not valid: {error}.") from error
    text = data.decode()
    for variable in re.findall(r"\{([a-zA-Z0-9.:_/-]+)\}", text):
        if not re.fullmatch(
            r"(artifacts|work|kernel):[a-zA-Z]+|configuration:/[\w/]+|iot:thingName", variable
        ):
            raise RecipeError(f"The recipe uses {{{variable}}}, which is no recipe variable.")
    for group in recipe.component_configuration.default_configuration.get(
        "accessControl", {}
    ).values():
        for name, policy in group.items():
            if (
                set(policy) - {"policyDescription", "operations", "resources"}
                or not policy.get("operations")
                or not policy.get("resources")
            ):
                raise RecipeError(
                    f"The accessControl policy {name} needs operations and resources, and knows only policyDescription beside them."
                )
    return recipe


def encode(recipe: Recipe) -> bytes:
    """As JSON, checked."""
    data = msgspec.json.format(msgspec.json.encode(recipe))
    parse(data)
    return data


def agent_recipe(version: str, artifacts: str, trust: TrustedKeys = NOBODY) -> Recipe:
    """The agent: fetched as wheels, run as a process, connected through the nucleus.

    ``trust``: the keys that the device believes; without any it refuses every command, until a
    deployment sets them.
    ``artifacts``: the ``s3://`` folder with ``agent.zip`` (wheels for the core's platform and
    ``requirements.txt``).
    """
    wheels = "{artifacts:decompressedPath}/agent"
    install = (
        f"{PYTHON} -m venv --clear {{work:path}}/venv && {{work:path}}/venv/bin/pip install --quiet --no-index --find-links {wheels} --no-deps "
        f"-r {wheels}/requirements.txt"
    )
    run = (
        "{work:path}/venv/bin/mledgeops-agent --greengrass --fleet {configuration:/fleet} --home {work:path}/data "
        "--heartbeat-seconds {configuration:/heartbeatSeconds} --node-config '{configuration:/nodeConfig}' "
        "--trust '{configuration:/trust}'"
    )
    return Recipe(
        recipe_format_version="2020-01-25",
        component_name=AGENT,
        component_version=version,
        component_publisher="MLEdgeOps",
        component_description="Trains and evaluates Flower apps on this device, when the cloud asks for it.",
        component_configuration=Configuration(
            default_configuration={
                "fleet": "default",
                "heartbeatSeconds": 30,
                "nodeConfig": {},
                "trust": msgspec.to_builtins(trust),
                "accessControl": {MQTT_PROXY: _access()},
            }
        ),
        component_dependencies={
            "aws.greengrass.Nucleus": Dependency(
                version_requirement=NUCLEUS, dependency_type="SOFT"
            )
        },
        manifests=[
            RecipeManifest(
                platform=Platform(os="linux", runtime="*"),
                lifecycle=Lifecycle(
                    install=Step(script=install, timeout=900), run=Step(script=run)
                ),
                artifacts=[Artifact(uri=f"{artifacts}/agent.zip", unarchive="ZIP")],
            )
        ],
    )


def app_recipe(app: FlowerApp, version: str, artifacts: str, *, wheels: bool = False) -> Recipe:
    """An app: its bundle, put where the agent finds it by digest, and its own dependencies beside
    it.

    ``artifacts``: the ``s3://`` folder with ``DIGEST.zip`` and, with ``wheels``,
    ``DIGEST-wheels.zip``.
    """
    digest, agent = app.digest(), "{kernel:rootPath}/work/" + AGENT
    apps, unpacked = f"{agent}/data/apps", "{artifacts:decompressedPath}"
    # One rename makes the app appear, last of all, so that the agent never sees half of it.
    steps = [f"mkdir -p {apps}/.site"]
    if wheels:
        steps.append(
            f"{agent}/venv/bin/pip install --quiet --upgrade --no-index --no-deps --find-links {unpacked}/{digest}-wheels "
            f"--target {apps}/.site/{digest} -r {unpacked}/{digest}-wheels/requirements.txt"
        )
    copy = f"rm -rf {apps}/.{digest} && cp -r {unpacked}/{digest} {apps}/.{digest} && mv {apps}/.{digest} {apps}/{digest}"
    steps.append(f"if [ ! -d {apps}/{digest} ]; then {copy}; fi")
    names = [f"{digest}.zip", *([f"{digest}-wheels.zip"] if wheels else [])]
    return Recipe(
        recipe_format_version="2020-01-25",
        component_name=f"{APP_PREFIX}.{re.sub(r'[^a-zA-Z0-9_-]', '-', app.name)}",
        component_version=version,
        component_description=f"The Flower app {app.name}, {digest[:12]}.",
        component_publisher="MLEdgeOps",
        component_configuration=Configuration(default_configuration={}),
        component_dependencies={AGENT: Dependency(version_requirement=">=0.1.0")},
        manifests=[
            RecipeManifest(
                platform=Platform(os="linux", runtime="*"),
                lifecycle=Lifecycle(install=Step(script=" && ".join(steps), timeout=900)),
                artifacts=[Artifact(uri=f"{artifacts}/{name}", unarchive="ZIP") for name in names],
            )
        ],
    )


def _access() -> dict[str, Any]:
    """The component's own topics and no other:
    https://docs.aws.amazon.com/greengrass/v2/developerguide/ipc-iot-core-mqtt.html
    """
    thing = "{iot:thingName}"
    return {
        f"{AGENT}:mqttproxy:1": {
            "policyDescription": "Heartbeats, replies, jobs and the shadow of this device.",
            "operations": ["aws.greengrass#PublishToIoTCore"],
            "resources": [
                f"fl/*/{thing}/heartbeat",
                f"fl/*/{thing}/reply",
                f"$aws/things/{thing}/shadow/get",
                f"$aws/things/{thing}/shadow/update",
                f"$aws/things/{thing}/jobs/start-next",
                f"$aws/things/{thing}/jobs/*/update",
            ],
        },
        f"{AGENT}:mqttproxy:2": {
            "policyDescription": "Commands to this device, its jobs and its shadow.",
            "operations": ["aws.greengrass#SubscribeToIoTCore"],
            "resources": [
                f"fl/*/{thing}/command",
                f"$aws/things/{thing}/shadow/*",
                f"$aws/things/{thing}/jobs/*",
            ],
        },
    }
