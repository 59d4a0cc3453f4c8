"""Which files of an app's folder belong to its bundle.

As Flower builds its own bundles: small sources and texts, without what ``.gitignore`` and
``fab-exclude`` name; or what ``fab-include`` names, of whatever kind
(https://flower.ai/docs/framework/how-to-configure-pyproject-toml.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROJECT_FILE = "pyproject.toml"
_SKIP = {"__pycache__", ".git", ".venv", ".mledgeops", ".ipynb_checkpoints"}
_SUFFIXES = {
    ".py",
    ".toml",
    ".md",
    ".json",
    ".jsonl",
    ".csv",
    ".parquet",
    ".yaml",
    ".yml",
    ".txt",
    ".npz",
    ".pt",
}


@dataclass(frozen=True)
class FilePatterns:
    """An app's own rules, as patterns of ``.gitignore``."""

    include: Sequence[str] = ()
    """``fab-include``. Empty: files of the usual kinds."""
    exclude: Sequence[str] = ()
    """``fab-exclude``."""


def app_files(folder: Path, patterns: FilePatterns) -> list[Path]:
    """Return the files of an app, sorted."""
    # No symbolic links: one could lead out of the folder, and a zip stores what it leads to.
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    return sorted(folder / name for name in selected(names, patterns, _ignored(folder)))


def selected(
    names: Iterable[str], patterns: FilePatterns, ignored: Sequence[str] = ()
) -> list[str]:
    """Return the names of an app's files among ``names``, which are relative with slashes.

    Args:
        names: Relative paths.
        patterns: The app's rules.
        ignored: The lines of its ``.gitignore``.

    """
    found = [name for name in names if not _SKIP & {*PurePosixPath(name).parts}]
    kept = (
        _matching(found, patterns.include)
        if patterns.include
        else [name for name in found if PurePosixPath(name).suffix in _SUFFIXES]
    )
    dropped = {*_matching(kept, patterns.exclude), *_matching(kept, ignored)} - {PROJECT_FILE}
    left = {*kept, PROJECT_FILE} - dropped
    return [name for name in found if name in left]


def unmatched(folder: Path, patterns: FilePatterns) -> list[str]:
    """Return the patterns of ``fab-include`` that name no file."""
    if not patterns.include:
        return []
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [pattern for pattern in patterns.include if not _matching(names, [pattern])]


def _ignored(folder: Path) -> list[str]:
    try:
        return (folder / ".gitignore").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return []
    # Not at the top: devices and functions, which build no bundle of such an app, may lack it.
    from pathspec import PathSpec

    return list(PathSpec.from_lines("gitignore", patterns).match_files(names))
