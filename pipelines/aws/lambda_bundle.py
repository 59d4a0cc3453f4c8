"""The zip that all Lambda functions share: our packages, without those that no function imports."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("edge", "fl_runtime", "registry", "pipelines")
LEFT_OUT = (
    "pipelines/aws/",
    "pipelines/chaos/",
    "pipelines/cli/",
    "pipelines/desk/",
    "pipelines/local/",
    "edge/agent/",
    "edge/greengrass/",
    "edge/serving/",
    "edge/transports/",
)
SUFFIXES = (".py", ".j2")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest date that a zip can hold, so that equal code gives equal bytes."""


def bundle(dependencies: Path | None = None) -> bytes:
    """The zip: the same bytes for the same code, so that an unchanged function is not updated.

    ``dependencies``: a folder that pip filled for Lambda's platform. The local cloud's functions
    find theirs in its environment.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in (*_own_files(), *_files_of(dependencies)):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def code_key(code: bytes) -> str:
    """S3 key of the zip, named by its content, so that new code is a change of the stacks."""
    return f"functions/{hashlib.sha256(code).hexdigest()}.zip"


def _own_files() -> Iterator[tuple[str, Path]]:
    root = Path(__file__).resolve().parent.parent.parent
    for package in PACKAGES:
        for file in sorted(f for f in (root / package).rglob("*") if f.suffix in SUFFIXES):
            name = file.relative_to(root).as_posix()
            if not name.startswith(LEFT_OUT):
                yield name, file


def _files_of(folder: Path | None) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")) if folder is not None else ():
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(folder).as_posix(), file  # type: ignore[arg-type]  # not None
