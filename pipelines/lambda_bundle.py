"""The zip that all Lambda functions share: our packages, without what runs in containers or locally only."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

PACKAGES = ("edge", "fl_runtime", "registry", "pipelines")


def bundle() -> bytes:
    """The same bytes for the same code, so an unchanged function is not updated."""
    root = Path(__file__).resolve().parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in PACKAGES:
            for file in sorted((root / package).rglob("*.py")):
                name = file.relative_to(root).as_posix()
                if not name.startswith(("pipelines/local/", "pipelines/commands/")):
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
