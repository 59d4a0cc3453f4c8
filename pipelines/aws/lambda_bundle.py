"""The zip that all Lambda functions share: our packages, without what runs in containers or locally
only.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

PACKAGES = ("edge", "fl_runtime", "registry", "pipelines")
LEFT_OUT = ("pipelines/local/", "pipelines/cli/", "pipelines/aws/", "pipelines/chaos/")
SUFFIXES = (".py", ".j2")
EPOCH = (1980, 1, 1, 0, 0, 0)


def bundle(dependencies: Path | None = None) -> bytes:
    """The same bytes for the same code, so an unchanged function is not updated.

    ``dependencies``: a folder that pip filled for Lambda's platform; the local cloud's functions
    find theirs in its environment.
    """
    root = Path(__file__).resolve().parent.parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in PACKAGES:
            for file in sorted(f for f in (root / package).rglob("*") if f.suffix in SUFFIXES):
                name = file.relative_to(root).as_posix()
                if not name.startswith(LEFT_OUT):
                    archive.writestr(
                        zipfile.ZipInfo(name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED
                    )
        if dependencies is not None:
            for file in (
                f
                for f in sorted(dependencies.rglob("*"))
                if f.is_file() and "__pycache__" not in f.parts
            ):
                archive.writestr(
                    zipfile.ZipInfo(file.relative_to(dependencies).as_posix(), EPOCH),
                    file.read_bytes(),
                    zipfile.ZIP_DEFLATED,
                )
    return buffer.getvalue()


def code_key(code: bytes) -> str:
    """Where the functions' code lies in the code bucket: named by its content, so new code is a
    change of the stacks.
    """
    return f"functions/{hashlib.sha256(code).hexdigest()}.zip"
