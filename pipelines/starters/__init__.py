"""What ``mledgeops new`` writes: a Flower app in NumPy or PyTorch, with a test and a pipeline."""

from __future__ import annotations

import importlib.util
import keyword
import re
import secrets
import shutil
from pathlib import Path

import jinja2

from pipelines.errors import UsageError

HERE = Path(__file__).parent
TEMPLATES = ("numpy", "pytorch")
LEGAL = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def write_app(folder: Path, template: str) -> list[Path]:
    """Write an app named like ``folder``; returns its files. The folder appears whole or not at
    all.

    Raises:
        UsageError: no legal name, or the folder exists.
    """
    name = folder.name
    package = name.replace("-", "_")
    _check_name(name, package)
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or move it away.")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {folder.parent}: make it first.")
    values = {"name": name, "package": package, "folder": str(folder), "publisher": "me"}
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # Python and TOML are written, and no markup
    )
    made = folder.absolute().with_name(f".{name}-{secrets.token_hex(4)}")
    made.mkdir()
    try:
        for source in _sources(template):
            target = made / _place(source, package)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = environment.from_string(source.read_text(encoding="utf-8")).render(values)
            target.write_text(text, encoding="utf-8")
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_name(name: str, package: str) -> None:
    if not LEGAL.fullmatch(name) or len(name) > 40:
        raise UsageError(
            f"{name!r} is not a legal name of an app: small letters, digits, and single - or _ "
            "between them, at most 40 characters."
        )
    if keyword.iskeyword(package) or importlib.util.find_spec(package):
        raise UsageError(
            f"Python knows {package!r} already, and an app of that name would hide it: choose "
            "another name."
        )


def _sources(template: str) -> list[Path]:
    return [path for part in ("common", template) for path in sorted((HERE / part).rglob("*.j2"))]


def _place(source: Path, package: str) -> Path:
    """Where a template's file goes in the app: ``package/`` is the app's own package."""
    _, *inner = source.relative_to(HERE).with_suffix("").parts
    return Path(*(package if part == "package" else part for part in inner))
