"""The files of a Greengrass component: its recipe, and its artifacts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from edge.greengrass.recipe import Recipe, agent_recipe, app_recipe, encode
from edge.identity.trust import TrustedKeys
from edge.training.app_bundle import FlowerApp
from pipelines.aws.pins import pins
from pipelines.aws.wheels import archive, download, wheel
from pipelines.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ComponentFiles:
    """A component as written to a folder."""

    recipe: Recipe
    file: Path
    """The recipe's file."""
    artifacts: list[Path]


@dataclass(frozen=True, kw_only=True)
class ComponentTarget:
    """What is built."""

    version: str
    """The component's version."""
    architecture: str
    """``ARM64`` or ``X86_64``."""
    place: str
    """S3 URI of the folder that the recipe takes the artifacts from."""
    out: Path
    """Folder that the files are written to."""


def write_agent(target: ComponentTarget, trust: TrustedKeys) -> ComponentFiles:
    """Write the agent's component; its devices trust the keys ``trust``."""
    recipe = agent_recipe(target.version, target.place, trust)
    file = _write_recipe(target, recipe)
    artifact = _agent_archive(target.out / "agent.zip", target.architecture)
    return ComponentFiles(recipe=recipe, file=file, artifacts=[artifact])


def write_app(target: ComponentTarget, app: FlowerApp) -> ComponentFiles:
    """Write a Flower app's component, with the wheels of its own dependencies."""
    own = own_dependencies(app)
    recipe = app_recipe(app, target.version, target.place, wheels=bool(own))
    file = _write_recipe(target, recipe)
    bundle = target.out / f"{app.digest()}.zip"
    bundle.write_bytes(app.bundle())
    artifacts = [bundle]
    if own:
        wheels = target.out / f"{app.digest()}-wheels.zip"
        artifacts.append(_wheels_archive(wheels, target.architecture, own))
    return ComponentFiles(recipe=recipe, file=file, artifacts=artifacts)


def own_dependencies(app: FlowerApp) -> list[str]:
    """The app's requirements that the agent does not bring.

    Raises:
        UsageError: pip cannot read one of them.

    """
    brought = {pin.split("==")[0] for pin in pins("device")}
    try:
        wanted = {canonicalize_name(Requirement(text).name): text for text in app.dependencies}
    except InvalidRequirement as error:
        raise UsageError(
            f"{app.folder / 'pyproject.toml'} has a dependency that pip cannot read: {error}."
        ) from error
    return [text for name, text in wanted.items() if name not in brought]


def _write_recipe(target: ComponentTarget, recipe: Recipe) -> Path:
    data = encode(recipe)
    target.out.mkdir(parents=True, exist_ok=True)
    file = target.out / f"{recipe.component_name}.json"
    file.write_bytes(data)
    return file


def _agent_archive(target: Path, architecture: str) -> Path:
    """Wheels of all that a device needs, for its platform, and the list that pins them."""
    with tempfile.TemporaryDirectory() as name:
        folder, wanted = Path(name), pins("device")
        download(folder, architecture, wanted)
        wheel(folder)
        (folder / "requirements.txt").write_text("\n".join([*wanted, "mledgeops"]) + "\n")
        archive(folder, target)
    return target


def _wheels_archive(target: Path, architecture: str, requirements: list[str]) -> Path:
    """Wheels of requirements and all that they need, without those that the agent brings.

    Versions agree with the agent's.
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
