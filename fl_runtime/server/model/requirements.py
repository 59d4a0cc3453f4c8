"""The packages that loading a logged model takes: MLflow's own, and those of the app."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from edge.training.app_bundle import AppError, FlowerApp
from edge.typed import convert

REQUIRED = ("mlflow", "numpy", "pandas", "safetensors")
"""What the model's code (:mod:`fl_runtime.server.model.mlflow_model`) imports."""
SETTING = "requirements"
"""In ``[tool.mledgeops]``: what predicting takes, where that is not all of the dependencies."""


def model_requirements(app: FlowerApp) -> list[str]:
    """The requirements, each with the version that is installed here: the model was tried with it.

    A package that is not installed here keeps the app's own specifier.

    Raises:
        AppError: the app names something that is no requirement.
    """
    found = {name: f"{name}=={_public(version(name))}" for name in REQUIRED}
    for text in _wanted(app):
        requirement = _parsed(app, text)
        if requirement.marker is None or requirement.marker.evaluate():
            name = canonicalize_name(requirement.name)
            if name not in found or requirement.extras:
                found[name] = _pinned(requirement)
    return list(found.values())


def package_names(requirements: list[str]) -> list[str]:
    """The packages that requirements name."""
    return [canonicalize_name(Requirement(text).name) for text in requirements]


def _wanted(app: FlowerApp) -> list[str]:
    given: Any = app.settings.get(SETTING, app.dependencies)
    try:
        return convert(given, list[str])
    except msgspec.ValidationError as error:
        raise AppError(
            f"[tool.mledgeops] {SETTING} in {app.folder.name}/pyproject.toml must be a list of "
            "requirements, such as ['numpy>=2']."
        ) from error


def _parsed(app: FlowerApp, text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise AppError(
            f"{text!r} in {app.folder.name}/pyproject.toml is no requirement: {error}."
        ) from error


def _pinned(requirement: Requirement) -> str:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return str(requirement)
    if requirement.url:
        return str(requirement)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={_public(installed)}"


def _public(installed: str) -> str:
    """Without the local part, such as ``+cpu``, which the package index does not have."""
    try:
        return Version(installed).public
    except InvalidVersion:
        return installed
