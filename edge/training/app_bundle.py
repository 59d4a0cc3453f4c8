"""A Flower app as a folder, a description and a content-addressed bundle.

Format: https://flower.ai/docs/framework/how-to-configure-pyproject-toml.html. Reads only
``pyproject.toml``: nothing of the app is imported here.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.protocol.messages import ConfigValue

_SKIP = {"__pycache__", ".git", ".venv", ".mledgeops", ".ipynb_checkpoints"}
_SUFFIXES = {".py", ".toml", ".md", ".json", ".csv", ".yaml", ".yml", ".txt", ".npz"}
BUNDLE_LIMIT = 50 * 2**20
"""Bytes of a bundle. Data does not belong into it: it is on the device already."""


class AppError(Exception):
    """A Flower app that cannot be used, with the reason in one sentence."""


@dataclass(frozen=True, kw_only=True)
class FlowerApp:
    """What an app's ``pyproject.toml`` says."""

    folder: Path
    name: str
    version: str
    client_app: str
    """``module:attribute`` of the ClientApp."""
    server_app: str
    """``module:attribute`` of the ServerApp, or empty: then ours is used."""
    config: dict[str, ConfigValue] = field(default_factory=dict)
    """``[tool.flwr.app.config]``, flattened with dots as Flower does."""
    settings: dict[str, Any] = field(default_factory=dict)
    """``[tool.mledgeops]``: optional; metric, goal, predict, input-example, initial-arrays,
    intended-use.
    """
    description: str = ""
    """``[project] description``."""
    licence: str = ""
    """``[project] license``."""
    dependencies: list[str] = field(default_factory=list)
    """``[project] dependencies``: what its modules import beside Flower."""

    @property
    def devices(self) -> int:
        """How many devices the app asks for by ``num-devices``, else 4."""
        count = self.config.get("num-devices", 4)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise AppError(
                f"num-devices in {self.folder.name}/pyproject.toml must be a whole number of at least 1, not {count!r}."
            )
        return count

    def files(self) -> list[Path]:
        """The bundle's files, sorted: sources and small text, no caches."""
        found = (
            path
            for path in self.folder.rglob("*")
            if path.is_file() and not path.is_symlink() and path.suffix in _SUFFIXES
        )
        return sorted(
            path for path in found if not _SKIP & set(path.relative_to(self.folder).parts)
        )

    def digest(self) -> str:
        """SHA-256 over names and contents: what a device's heartbeat says it can run."""
        total = hashlib.sha256()
        for path in self.files():
            name = path.relative_to(self.folder).as_posix().encode()
            data = path.read_bytes()
            total.update(len(name).to_bytes(8, "big") + name + len(data).to_bytes(8, "big") + data)
        return total.hexdigest()

    def bundle(self) -> bytes:
        """A zip of :meth:`files`, the same bytes for the same content."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.files():
                info = zipfile.ZipInfo(
                    path.relative_to(self.folder).as_posix(), (1980, 1, 1, 0, 0, 0)
                )
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
        if buffer.tell() > BUNDLE_LIMIT:
            raise AppError(
                f"The app {self.name} packs to {buffer.tell()} bytes; at most {BUNDLE_LIMIT} are shipped. Leave its data out."
            )
        return buffer.getvalue()


def load_app(folder: Path) -> FlowerApp:
    """Read a Flower app's description; raises AppError that says what is missing and where."""
    if not folder.is_dir():
        raise AppError(f"There is no folder {folder}. Give the path of a Flower app.")
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise AppError(f"{folder} is not a Flower app: it has no pyproject.toml.")
    try:
        document = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppError(f"{file} is not valid TOML: {error}.") from error
    tool = document.get("tool", {})
    section = tool.get("flwr", {}).get("app", {})
    components = section.get("components", {})
    client = components.get("clientapp")
    if not isinstance(client, str) or client.count(":") != 1:
        raise AppError(
            f"{folder} is not a Flower app: {file.name} names no clientapp as 'module:attribute' under [tool.flwr.app.components]."
        )
    server = components.get("serverapp", "")
    if not isinstance(server, str) or (server and server.count(":") != 1):
        raise AppError(
            f"{file} names its serverapp as {server!r}; it must be 'module:attribute' or absent."
        )
    project = document.get("project", {})
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(
        isinstance(item, str) for item in dependencies
    ):
        raise AppError(f"{file} has dependencies that are not a list of strings.")
    return FlowerApp(
        folder=folder.resolve(),
        name=str(project.get("name", folder.name)),
        version=str(project.get("version", "0")),
        client_app=client,
        server_app=server,
        config=_flatten(section.get("config", {})),
        settings=tool.get("mledgeops", {}),
        dependencies=dependencies,
        description=str(project.get("description", "")),
        licence=_licence(project.get("license", "")),
    )


def _licence(given: object) -> str:
    """An SPDX expression, or the older table's text or file name
    (https://packaging.python.org/en/latest/specifications/pyproject-toml/).
    """
    return (
        str(given.get("text") or given.get("file") or "")
        if isinstance(given, Mapping)
        else str(given)
    )


def site_of(folder: Path) -> Path:
    """Where an installed app's own dependencies lie: beside it, so that two apps may want two
    versions, and the agent none.
    """
    return folder.parent / ".site" / folder.name


def unpack(bundle: bytes, folder: Path) -> FlowerApp:
    """Unpack a bundle into a new folder and read it; refuses paths that leave the folder."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        if sum(info.file_size for info in archive.infolist()) > 10 * BUNDLE_LIMIT:
            raise AppError("The app bundle unpacks to more than is allowed.")
        for info in archive.infolist():
            target = (folder / info.filename).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise AppError(
                    f"The app bundle holds the path {info.filename!r}, which leaves its folder."
                )
        archive.extractall(folder)
    return load_app(folder)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, ConfigValue]:
    flat: dict[str, ConfigValue] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        else:
            raise AppError(
                f"[tool.flwr.app.config] {prefix}{key} is a {type(value).__name__}; Flower knows numbers, strings and booleans."
            )
    return flat
