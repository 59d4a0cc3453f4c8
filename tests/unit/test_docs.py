"""Documentation: links lead somewhere, pictures parse, and paths that the text names exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.paths import ROOT

SVG = "{http://www.w3.org/2000/svg}"
TEXTS = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "notebooks/**/*.md", "pipelines/**/*.md")
    for file in ROOT.glob(pattern)
)
PICTURES = sorted((ROOT / "docs").rglob("*.svg"))
HISTORY = {"CHANGELOG.md"}
"""Texts that name what earlier versions had."""
OURS = ("edge", "fl_runtime", "registry", "pipelines", "tests", "notebooks", "docs")

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
TEST = re.compile(r"tests/[\w/]+\.py::test_\w+")
MODULE = re.compile(r"(edge|fl_runtime|registry|pipelines)(\.[A-Za-z_]\w*)+")


def prose(file: Path) -> str:
    """A text without its fenced blocks."""
    return FENCE.sub("", file.read_text())


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to a text's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(file), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


def broken_links(file: Path) -> list[str]:
    broken = []
    for target in LINK.findall(prose(file)):
        url = urlsplit(target)
        if url.scheme:
            continue
        there = (file.parent / unquote(url.path)).resolve() if url.path else file
        known = there.exists() and (not url.fragment or url.fragment in anchors(there))
        broken += [] if known else [target]
    return broken


def named_paths(text: str) -> set[str]:
    """The paths of this repository that a text names in backticks."""
    return {
        name
        for name in CODE.findall(text)
        if PATH.fullmatch(name)
        and (name.endswith(".py") or ("/" in name and name.split("/")[0] in OURS))
    }


def exists(name: str, file: Path) -> bool:
    """Whether a path exists, from the root or from the text that names it; a file named without a
    folder may be anywhere.
    """
    if "/" in name:
        return (ROOT / name).exists() or (file.parent / name).exists()
    return any(any((ROOT / package).rglob(name)) for package in OURS)


def module_file(dotted: str) -> Path | None:
    """The source of a module or package of ours, by its dotted name."""
    path = ROOT.joinpath(*dotted.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or a name that one defines or imports."""
    module, _, name = dotted.rpartition(".")
    if module_file(dotted) is not None:
        return True
    source = module_file(module) if module else None
    return source is not None and re.search(rf"\b{name}\b", source.read_text()) is not None


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    assert broken_links(file) == []


@pytest.mark.parametrize(
    "file",
    [file for file in TEXTS if file.name not in HISTORY],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_paths_and_modules_named_in_the_text_exist(file: Path) -> None:
    text = prose(file)
    missing = {name for name in named_paths(text) if not exists(name, file)}
    missing |= {m for m in CODE.findall(text) if MODULE.fullmatch(m) and not resolves(m)}
    assert missing == set()


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_tests_named_as_proof_exist(file: Path) -> None:
    named = [name.split("::") for name in CODE.findall(prose(file)) if TEST.fullmatch(name)]
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or f"def {test}(" not in (ROOT / path).read_text()
    ]
    assert missing == []


def test_imports_shown_in_examples_work() -> None:
    shown = {
        (module, name)
        for file in TEXTS
        if file.name not in HISTORY
        for module, names in re.findall(
            r"^from ((?:edge|fl_runtime|registry|pipelines)[\w.]*) import (.+)$",
            file.read_text(),
            re.MULTILINE,
        )
        for name in names.split(", ")
    }
    assert {
        f"{module}.{name}" for module, name in shown if not resolves(f"{module}.{name}")
    } == set()


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.name)
def test_pictures_parse_and_describe_themselves(file: Path) -> None:
    root = ElementTree.parse(file).getroot()
    assert root.tag == f"{SVG}svg"
    assert "viewBox" in root.attrib
    for part in ("title", "desc"):
        element = root.find(f"{SVG}{part}")
        assert element is not None
        assert (element.text or "").strip()
    assert "prefers-color-scheme: dark" in file.read_text(), "readable in light and dark"
    assert not list(root.iter(f"{SVG}script"))


def test_each_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for record in (ROOT / "docs" / "decisions").glob("0*.md"):
        number, _, title = record.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        assert f"| {number} | [{title}]({record.name}) |" in index


def test_the_layout_names_each_folder_of_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {
        str(file.parent.relative_to(ROOT))
        for package in ("edge", "fl_runtime", "registry", "pipelines")
        for file in (ROOT / package).rglob("*.py")
        if file.name != "__init__.py"
    }
    untold = {f for f in folders if f"`{f}/`" not in text and "/app" not in f}
    assert untold == set()
