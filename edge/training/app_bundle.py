"""A Flower app as a folder, a description and a content-addressed bundle.

Only ``pyproject.toml`` is read; nothing of the app is imported here. Its format:
https://flower.ai/docs/framework/how-to-configure-pyproject-toml.html.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edge.errors import MLEdgeOpsError
from edge.protocol.messages import ConfigValue
from edge.protocol.names import is_digest
from edge.protocol.text import printable
from edge.training.app_files import PROJECT_FILE, FilePatterns, app_files, selected, unmatched

BUNDLE_LIMIT = 50 * 2**20
"""Bytes of a bundle. Training data does not belong in it: the device has its own."""
_UNPACKED_LIMIT = 10 * BUNDLE_LIMIT
_DEFAULT_DEVICES = 4
ROUNDS_KEY = "num-server-rounds"
"""The setting by which Flower apps name their rounds, unless ``rounds-key`` names another."""
_FEDERATIONS_NAMED = 5
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)
"""What zipfile raises for a damaged archive: RuntimeError also for one that is encrypted, or whose
compression it does not know.
"""


class AppError(MLEdgeOpsError):
    """A Flower app that cannot be used."""

    code = "app"


@dataclass(frozen=True, kw_only=True)
class FlowerApp:
    """An app, as its ``pyproject.toml`` describes it."""

    folder: Path
    name: str
    version: str
    client_app: str
    """``module:attribute`` of the ClientApp."""
    server_app: str
    """``module:attribute`` of the ServerApp; empty: the run uses the product's own."""
    config: dict[str, ConfigValue] = field(default_factory=dict)
    """``[tool.flwr.app.config]``, flattened with dots as Flower does."""
    settings: dict[str, Any] = field(default_factory=dict)
    """``[tool.mledgeops]``, all optional: metric, goal, predict, input-example, initial-arrays,
    intended-use, rounds-key.
    """
    description: str = ""
    """``[project] description``."""
    licence: str = ""
    """``[project] license``."""
    dependencies: list[str] = field(default_factory=list)
    """``[project] dependencies``."""
    patterns: FilePatterns = field(default_factory=FilePatterns)
    """``[tool.flwr.app] fab-include`` and ``fab-exclude``."""
    federations: tuple[str, ...] = ()
    """Settings of ``[tool.flwr.federations]``, as ``local.options.num-supernodes = 10``. They are
    of Flower's own engines: none applies here, and a run says so.
    """

    @property
    def devices(self) -> int:
        """The number of devices that the app asks for by ``num-devices``, else 4."""
        count = self.config.get("num-devices", _DEFAULT_DEVICES)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise AppError(
                f"num-devices in {self.folder.name}/pyproject.toml must be a whole number of at"
                f" least 1, not {count!r}."
            )
        return count

    @property
    def rounds_key(self) -> str:
        """The setting that says how many rounds to run. Empty: the app's ServerApp decides alone.

        An app without a ServerApp always has it.
        """
        key = str(self.settings.get("rounds-key", ROUNDS_KEY))
        if key in self.config or not self.server_app:
            return key
        if "rounds-key" in self.settings:
            raise AppError(
                f"[tool.mledgeops] rounds-key names {key!r}, which is no setting under"
                " [tool.flwr.app.config]."
            )
        return ""

    def files(self) -> list[Path]:
        """Return the bundle's files, sorted: see :mod:`edge.training.app_files`.

        Raises:
            AppError: A pattern of ``fab-include`` names no file.

        """
        if nothing := unmatched(self.folder, self.patterns):
            raise AppError(
                f"fab-include in {self.folder.name}/pyproject.toml names {nothing[0]!r}, which"
                " matches no file."
            )
        return app_files(self.folder, self.patterns)

    def digest(self) -> str:
        """Return the SHA-256 over names and contents, which names the app on devices and in S3."""
        total = hashlib.sha256()
        for path in self.files():
            name = path.relative_to(self.folder).as_posix().encode()
            data = path.read_bytes()
            total.update(_header(name, len(data)) + data)
        return total.hexdigest()

    def bundle(self) -> bytes:
        """Return a zip of :meth:`files`, the same bytes for the same content."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.files():
                # A fixed date: the file's own would make each checkout's bundle another one.
                info = zipfile.ZipInfo(
                    path.relative_to(self.folder).as_posix(), (1980, 1, 1, 0, 0, 0)
                )
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
        if buffer.tell() > BUNDLE_LIMIT:
            largest = max(self.files(), key=lambda path: path.stat().st_size)
            raise AppError(
                f"The bundle of the app {self.name} has {buffer.tell()} bytes; the limit is"
                f" {BUNDLE_LIMIT}. Leave data out by fab-exclude under [tool.flwr.app]; the largest"
                f" file is {largest.relative_to(self.folder)}."
            )
        return buffer.getvalue()


def load_app(folder: Path) -> FlowerApp:
    """Read a Flower app's description.

    Raises:
        AppError: Says what is missing or malformed, and where.

    """
    document = _document(folder)
    tool, project = document.get("tool", {}), document.get("project", {})
    section = tool.get("flwr", {}).get("app", {})
    client, server = _components(folder, section.get("components", {}))
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(
        isinstance(item, str) for item in dependencies
    ):
        raise AppError(
            f"{folder / 'pyproject.toml'} has dependencies that are not a list of strings."
        )
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
        patterns=_patterns(folder, section),
        federations=_federations(tool.get("flwr", {}).get("federations", {})),
    )


def _federations(given: object, prefix: str = "") -> tuple[str, ...]:
    """Return the settings without the name of the default, at most :data:`_FEDERATIONS_NAMED`."""
    if not isinstance(given, Mapping):
        return ()
    found: list[str] = []
    for key, value in given.items():
        if isinstance(value, Mapping):
            found += _federations(value, f"{prefix}{key}.")
        elif prefix:
            found.append(printable(f"{prefix}{key} = {value}", 80))
    return tuple(found[:_FEDERATIONS_NAMED])


def _patterns(folder: Path, section: Mapping[str, Any]) -> FilePatterns:
    found: dict[str, list[str]] = {}
    for key in ("fab-include", "fab-exclude"):
        found[key] = section.get(key, [])
        if not isinstance(found[key], list) or not all(
            isinstance(item, str) and item.strip() for item in found[key]
        ):
            raise AppError(f"{key} in {folder / PROJECT_FILE} must be a list of patterns.")
    return FilePatterns(tuple(found["fab-include"]), tuple(found["fab-exclude"]))


def _document(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise AppError(f"There is no folder {folder}. Give the path of a Flower app.")
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise AppError(f"{folder} is not a Flower app: it has no pyproject.toml.")
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppError(f"{file} is not valid TOML: {error}.") from error


def _components(folder: Path, components: Mapping[str, Any]) -> tuple[str, str]:
    """Return the references of ClientApp and ServerApp, the latter maybe empty."""
    client, server = components.get("clientapp"), components.get("serverapp", "")
    if not isinstance(client, str) or client.count(":") != 1:
        raise AppError(
            f"{folder} is not a Flower app: pyproject.toml names no clientapp as 'module:attribute'"
            " under [tool.flwr.app.components]."
        )
    if not isinstance(server, str) or (server and server.count(":") != 1):
        raise AppError(
            f"{folder / 'pyproject.toml'} names its serverapp as {server!r}; it must be"
            " 'module:attribute' or absent."
        )
    return client, server


def _licence(given: object) -> str:
    """Return the SPDX expression, or the older table's text or file name.

    https://packaging.python.org/en/latest/specifications/pyproject-toml/#license
    """
    if isinstance(given, Mapping):
        return str(given.get("text") or given.get("file") or "")
    return str(given)


def site_of(folder: Path) -> Path:
    """Return the folder of an installed app's own dependencies.

    It lies beside the app: two apps may need two versions of a package, and the agent neither.
    """
    return folder.parent / ".site" / folder.name


def installed_apps(folder: Path) -> list[str]:
    """Return the digests of the apps in a device's apps folder, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if is_digest(path.name))


def unpack(bundle: bytes, folder: Path, digest: str) -> FlowerApp:
    """Unpack a bundle into a new folder and read it.

    Its digest is compared before anything is written: whoever can replace a bundle where it is
    stored could otherwise run code in the server's role.

    Args:
        bundle: From :meth:`FlowerApp.bundle`.
        folder: Where to.
        digest: From :meth:`FlowerApp.digest`.

    Raises:
        AppError: The bundle is damaged, too large, or not the app of this digest.

    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            if _digest_of(archive) != digest:
                raise AppError(f"The app bundle is not that of the app {digest[:12]}.")
            archive.extractall(folder)
    except _DAMAGED as error:
        raise AppError(f"The app bundle is damaged: {printable(str(error))}") from error
    return load_app(folder)


def _digest_of(archive: zipfile.ZipFile) -> str:
    """Return what :meth:`FlowerApp.digest` is of the archive's files, without unpacking them.

    Raises:
        AppError: It holds what no bundle holds; that would be unpacked and not counted.

    """
    entries = {PurePosixPath(info.filename): info for info in archive.infolist()}
    if sum(info.file_size for info in archive.infolist()) > _UNPACKED_LIMIT:
        raise AppError(f"The app bundle unpacks to more than {_UNPACKED_LIMIT} bytes.")
    for path, info in entries.items():
        if path.is_absolute() or ".." in path.parts:
            raise AppError(
                f"The app bundle holds the path {info.filename[:200]!r}, which leaves its folder."
            )
    names = [info.filename for info in archive.infolist()]
    known = {*selected(names, _patterns_in(archive))}
    if sorted(path.as_posix() for path in entries) != sorted(known):
        raise AppError("The app bundle holds more than an app's files.")
    total = hashlib.sha256()
    for path in sorted(entries):
        name, info = path.as_posix().encode(), entries[path]
        total.update(_header(name, info.file_size))
        with archive.open(info) as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def _patterns_in(archive: zipfile.ZipFile) -> FilePatterns:
    try:
        document = tomllib.loads(archive.read(PROJECT_FILE).decode())
    except KeyError:
        return FilePatterns()
    section = document.get("tool", {}).get("flwr", {}).get("app", {})
    return _patterns(Path(), section if isinstance(section, dict) else {})


def _header(name: bytes, size: int) -> bytes:
    """Return what precedes a file's content in a digest.

    Lengths first: no name can run over into its content and give the same digest.
    """
    return len(name).to_bytes(8, "big") + name + size.to_bytes(8, "big")


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, ConfigValue]:
    flat: dict[str, ConfigValue] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        else:
            raise AppError(
                f"[tool.flwr.app.config] {prefix}{key} is a {type(value).__name__}; Flower allows"
                " numbers, strings and booleans."
            )
    return flat
