"""Recipes of the Greengrass V2 components: the agent, and one for each Flower app.

The structs are AWS's reference as far as these recipes use it, and :func:`parse` refuses other
fields (https://docs.aws.amazon.com/greengrass/v2/developerguide/component-recipe-reference.html).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from edge.errors import MLEdgeOpsError
from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import FlowerApp
from edge.typed import from_json

AGENT = "com.mledgeops.Agent"
APP_PREFIX = "com.mledgeops.app"
MQTT_PROXY = "aws.greengrass.ipc.mqttproxy"
PYTHON = "python3.11"
NUCLEUS = ">=2.6.0 <3.0.0"
"""From 2.6.0 on, ``accessControl`` may contain recipe variables."""
NUCLEUS_CONFIGURATION = {"interpolateComponentConfiguration": True}
"""What a deployment must set for the nucleus: otherwise it leaves the variables of
``accessControl`` as they are, and the agent reaches no topic.
https://docs.aws.amazon.com/greengrass/v2/developerguide/greengrass-nucleus-component.html
"""
NOBODY = TrustedKeys()
"""No keys: an agent with these refuses every command."""
_VARIABLE = re.compile(r"\{([a-zA-Z0-9.:_/-]+)\}")
_KNOWN_VARIABLE = re.compile(
    r"(artifacts|work|kernel):[a-zA-Z]+|configuration:/[\w/]+|iot:thingName"
)

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
    """Fields are in PascalCase, as AWS writes them."""


class Dependency(_Part):
    """A component that this one needs."""

    version_requirement: Text
    dependency_type: Literal["HARD", "SOFT"] = "HARD"


class Step(_Part):
    """One step of a component's lifecycle."""

    script: Text = msgspec.field(name="Script")
    timeout: Annotated[int, msgspec.Meta(gt=0)] = msgspec.field(name="Timeout", default=120)
    requires_privilege: bool = msgspec.field(name="RequiresPrivilege", default=False)
    setenv: dict[str, str] = msgspec.field(name="Setenv", default_factory=dict)


class Lifecycle(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """``run`` is a process that stays; ``startup`` and ``shutdown`` start and stop a daemon.

    ``install`` runs before either, ``recover`` after a crash.
    """

    install: Step | None = None
    run: Step | None = None
    startup: Step | None = None
    shutdown: Step | None = None
    recover: Step | None = None


class Artifact(_Part):
    """A file in S3. The core downloads it with its own role, and checks AWS's digest of it."""

    uri: Annotated[str, msgspec.Meta(pattern=r"^s3://[a-z0-9.-]{3,63}/.+$")] = msgspec.field(
        name="URI"
    )
    unarchive: Literal["NONE", "ZIP"] = "NONE"


class Platform(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The systems that a manifest is for."""

    os: Literal["linux", "darwin", "windows", "all"]
    architecture: Literal["amd64", "arm", "aarch64", "x86", "all"] | None = None
    runtime: str | None = None
    """``*`` allows nucleus-lite too."""


class RecipeManifest(_Part):
    """Lifecycle and artifacts for one platform."""

    platform: Platform
    lifecycle: Lifecycle
    artifacts: list[Artifact] = []


class Configuration(_Part):
    """Default configuration; a deployment may change it."""

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


class RecipeError(MLEdgeOpsError, ValueError):
    """A recipe that Greengrass would refuse."""

    code = "recipe"


def parse(data: bytes) -> Recipe:
    """Read and check a recipe. Raises RecipeError."""
    try:
        recipe = from_json(data, type=Recipe)
    except msgspec.DecodeError as error:
        raise RecipeError(f"The recipe is not valid: {error}.") from error
    for variable in _VARIABLE.findall(data.decode()):
        if not _KNOWN_VARIABLE.fullmatch(variable):
            raise RecipeError(f"The recipe uses {{{variable}}}, which is not a recipe variable.")
    configuration = recipe.component_configuration.default_configuration
    for service in configuration.get("accessControl", {}).values():
        for name, policy in service.items():
            _check_policy(name, policy)
    return recipe


def _check_policy(name: str, policy: dict[str, Any]) -> None:
    """Raise RecipeError for a policy that the nucleus would not apply.

    https://docs.aws.amazon.com/greengrass/v2/developerguide/interprocess-communication.html
    """
    unknown = set(policy) - {"policyDescription", "operations", "resources"}
    if unknown or not policy.get("operations") or not policy.get("resources"):
        raise RecipeError(
            f"The accessControl policy {name} must have operations and resources, and may have a"
            " policyDescription."
        )


def encode(recipe: Recipe) -> bytes:
    """Encode a recipe as JSON, and check it."""
    data = msgspec.json.format(msgspec.json.encode(recipe))
    parse(data)
    return data


def agent_recipe(version: str, artifacts: str, trust: TrustedKeys = NOBODY) -> Recipe:
    """Build the agent's recipe: installed from wheels, connected by way of the nucleus.

    Args:
        version: The component's version.
        artifacts: The ``s3://`` folder with ``agent.zip``, which holds wheels for the core's
            platform and ``requirements.txt``.
        trust: The keys that the device trusts. Without keys it refuses every command, until a
            deployment sets them.

    """
    wheels = "{artifacts:decompressedPath}/agent"
    install = (
        f"{PYTHON} -m venv --clear {{work:path}}/venv && {{work:path}}/venv/bin/pip install --quiet"
        f" --no-index --find-links {wheels} --no-deps -r {wheels}/requirements.txt"
    )
    run = (
        "{work:path}/venv/bin/mledgeops-agent --greengrass --fleet {configuration:/fleet}"
        " --home {work:path}/data --heartbeat-seconds {configuration:/heartbeatSeconds}"
        " --node-config '{configuration:/nodeConfig}' --trust '{configuration:/trust}'"
    )
    lifecycle = Lifecycle(install=Step(script=install, timeout=900), run=Step(script=run))
    nucleus = Dependency(version_requirement=NUCLEUS, dependency_type="SOFT")
    return _recipe(
        AGENT,
        version,
        "Trains and evaluates Flower apps on this device, when the cloud asks for it.",
        lifecycle,
        [Artifact(uri=f"{artifacts}/agent.zip", unarchive="ZIP")],
        dependencies={"aws.greengrass.Nucleus": nucleus},
        configuration={
            "fleet": "default",
            "heartbeatSeconds": 30,
            "nodeConfig": {},
            "trust": msgspec.to_builtins(trust),
            "accessControl": {MQTT_PROXY: _access()},
        },
    )


def app_recipe(app: FlowerApp, version: str, artifacts: str, *, wheels: bool = False) -> Recipe:
    """Build an app's recipe: it copies the bundle to the agent's apps folder.

    Args:
        app: The app.
        version: The component's version.
        artifacts: The ``s3://`` folder with ``DIGEST.zip`` and, with ``wheels``,
            ``DIGEST-wheels.zip``.
        wheels: Whether the app has dependencies of its own, which are installed beside it.

    """
    digest, agent = app.digest(), "{kernel:rootPath}/work/" + AGENT
    apps, unpacked = f"{agent}/data/apps", "{artifacts:decompressedPath}"
    steps = [f"mkdir -p {apps}/.site"]
    if wheels:
        steps.append(
            f"{agent}/venv/bin/pip install --quiet --upgrade --no-index --no-deps"
            f" --find-links {unpacked}/{digest}-wheels --target {apps}/.site/{digest}"
            f" -r {unpacked}/{digest}-wheels/requirements.txt"
        )
    # The rename comes last and is one step, so that the agent never sees half of an app.
    copy = (
        f"rm -rf {apps}/.{digest} && cp -r {unpacked}/{digest} {apps}/.{digest}"
        f" && mv {apps}/.{digest} {apps}/{digest}"
    )
    steps.append(f"if [ ! -d {apps}/{digest} ]; then {copy}; fi")
    names = [f"{digest}.zip", *([f"{digest}-wheels.zip"] if wheels else [])]
    return _recipe(
        f"{APP_PREFIX}.{re.sub(r'[^a-zA-Z0-9_-]', '-', app.name)}",
        version,
        f"The Flower app {app.name}, {digest[:12]}.",
        Lifecycle(install=Step(script=" && ".join(steps), timeout=900)),
        [Artifact(uri=f"{artifacts}/{name}", unarchive="ZIP") for name in names],
        dependencies={AGENT: Dependency(version_requirement=">=0.1.0")},
        configuration={},
    )


def _recipe(
    name: str,
    version: str,
    description: str,
    lifecycle: Lifecycle,
    artifacts: list[Artifact],
    *,
    dependencies: dict[str, Dependency],
    configuration: dict[str, Any],
) -> Recipe:
    platform = Platform(os="linux", runtime="*")
    return Recipe(
        recipe_format_version="2020-01-25",
        component_name=name,
        component_version=version,
        component_publisher="MLEdgeOps",
        component_description=description,
        component_configuration=Configuration(default_configuration=configuration),
        component_dependencies=dependencies,
        manifests=[RecipeManifest(platform=platform, lifecycle=lifecycle, artifacts=artifacts)],
    )


def _access() -> dict[str, Any]:
    """Allow the component its own topics and no others.

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
