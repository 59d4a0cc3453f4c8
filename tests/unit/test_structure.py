"""What ``make structure`` counts."""

from __future__ import annotations

import ast
from pathlib import Path

import structure


def tree(root: Path, **files: str) -> Path:
    """A checkout with the given modules; ``__`` in a name stands for a folder."""
    for package in structure.PACKAGES:
        (root / package).mkdir()
    (root / "tests").mkdir()
    for name, text in files.items():
        (root / f"{name.replace('__', '/')}.py").write_text(text)
    return root


def test_imports_are_found_at_any_depth_and_only_ours(tmp_path: Path) -> None:
    code = "import os\nfrom edge import logs\ndef f():\n    from edge.files import write\n"
    root = tree(tmp_path, edge__logs="", edge__files="", edge__agent=code)
    ours = structure.modules(root)
    assert set(ours) == {"edge.logs", "edge.files", "edge.agent"}
    assert structure.imports(ours["edge.agent"], set(ours)) == {"edge.logs", "edge.files"}


def test_a_module_that_no_test_imports_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, edge__logs="", edge__files="", tests__test_logs="import edge.logs\n")
    assert structure.unreached(root) == ["edge.files"]


def test_a_public_class_that_two_modules_define_is_named_with_both(tmp_path: Path) -> None:
    text = "class Rule: ...\nclass _Private: ...\n"
    root = tree(tmp_path, edge__a=text, registry__b=text)
    assert structure.repeated(root) == {"Rule": ["edge.a", "registry.b"]}


def test_the_report_counts_long_lines_large_classes_and_arrows(tmp_path: Path) -> None:
    methods = "".join(f"    def m{n}(self): ...\n" for n in range(12))
    root = tree(
        tmp_path, edge__a=f"x = '{'y' * 100}'\nclass Big:\n{methods}", edge__b="import edge.a\n"
    )
    report = "\n".join(structure.report(root))
    assert "above 100 columns 1," in report
    assert "edge.a:Big 12" in report
    assert "edge: 2 rooms, 1 arrows between them" in report


def test_plain_data_is_told_from_behaviour() -> None:
    def node(text: str) -> ast.ClassDef:
        return ast.parse(text).body[0]  # type: ignore[return-value]

    assert structure.is_data(node("@dataclass(frozen=True)\nclass A: ..."))
    assert structure.is_data(node("class A(msgspec.Struct, frozen=True): ..."))
    assert not structure.is_data(node("class A(Protocol): ..."))
