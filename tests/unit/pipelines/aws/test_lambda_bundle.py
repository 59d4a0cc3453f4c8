"""The functions' zip: the same bytes for the same code, and all that the functions import."""

from __future__ import annotations

import ast
import io
import zipfile
from pathlib import Path

from support.paths import ROOT

from pipelines.aws.lambda_bundle import LEFT_OUT, bundle, code_key
from pipelines.aws.policies.roles import FUNCTIONS

OURS = ("edge", "fl_runtime", "registry", "pipelines")


def file_of(module: str) -> str | None:
    """A module's file in the repository; None for a name that is no module."""
    path = ROOT / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file.relative_to(ROOT).as_posix()
    return None


def imported(file: str) -> set[str]:
    """Our files that a file imports, at any depth of its text, and the packages around them."""
    names: set[str] = set()
    for node in ast.walk(_run_code(ast.parse((ROOT / file).read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] in OURS]
    modules = {".".join(part[: depth + 1]) for part in parts for depth in range(len(part))}
    return {found for module in modules if (found := file_of(module))}


def _run_code(tree: ast.Module) -> ast.Module:
    """A module without what only a type checker reads."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def test_the_zip_has_all_that_the_functions_import() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        zipped = set(archive.namelist())
    seen: set[str] = set()
    waiting = {f"pipelines/handlers/{name}.py" for name in FUNCTIONS}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= imported(file) - seen
    assert seen <= zipped


def test_what_is_left_out_exists() -> None:
    assert all((ROOT / folder).is_dir() for folder in LEFT_OUT)


def test_the_same_code_gives_the_same_zip(tmp_path: Path) -> None:
    assert bundle() == bundle()
    assert code_key(bundle()) == code_key(bundle())
    (tmp_path / "more.py").write_text("x = 1")
    with zipfile.ZipFile(io.BytesIO(bundle(tmp_path))) as archive:
        assert archive.read("more.py") == b"x = 1"
    assert code_key(bundle(tmp_path)) != code_key(bundle())
