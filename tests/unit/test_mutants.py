"""What ``make mutants`` changes, and which tests it asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import campaign
from mutants.concerned import Concerned, by_line
from mutants.mutations import mutants
from mutants.workers import KILLED, SURVIVED, tried
from support.paths import ROOT


def changed(text: str) -> list[str]:
    """The texts of all mutants of a module."""
    source = text.encode()
    return [mutant.applied(source).decode() for mutant in mutants("m.py", source)]


@pytest.mark.parametrize(
    ("text", "mutated"),
    [
        ("a < b", ["(a <= b)"]),
        ("0 <= a < b", ["(0 < a < b)", "(0 <= a <= b)", "1 <= a < b"]),
        ("a and b or c", ["((a and b) and (c))", "((a) or (b)) or c"]),
        ("x = not a", ["x = bool(a)"]),
        ("x = f(True, 3)", ["x = f(False, 3)", "x = f(True, 4)"]),
        ("x = max(a) + 1.5", ["x = ((max(a)) - (1.5))", "x = max(a) + 2.5", "x = min(a) + 1.5"]),
        ("if ready:\n    f()", ["if (not (ready)):\n    f()", "if ready:\n    pass"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if True]"]),
        ("raise E(1)", ["pass", "raise E(2)"]),
        ("x += 1", ["pass", "x += 2", "x -= 1"]),
        ("def f():\n    return g(x)", ["def f():\n    return None"]),
        ("x = 1e200", ["x = 2e+200"]),
        ("s = 'é'; f(2)", ["s = 'é'; f(3)", "s = 'é'; pass"]),
    ],
)
def test_each_mutant_has_one_small_change(text: str, mutated: list[str]) -> None:
    assert set(mutated) <= set(changed(text))
    assert text not in changed(text)


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""',
        "import a",
        "x: int | None",
        "def f(x: int | str) -> int | None: ...",
        "event(logger, 'x', n=1)",
        "x = 'a' + 'b'",
        "x = f'{a:.3f}'",
        "def f():\n    return None",
        "x = zip(a, b, strict=True)",
        "x = a.astype(b, copy=False)",
    ],
)
def test_texts_annotations_and_logs_are_left_alone(text: str) -> None:
    assert changed(text) == []


def test_a_change_outside_of_functions_is_known_to_run_at_import() -> None:
    text = b"LIMIT = 3\ndef f(x=1):\n    return x + 2\n"
    found = {(m.change.line, m.change.kind): m.at_import for m in mutants("m.py", text)}
    assert found == {
        (1, "number"): True,
        (2, "number"): True,
        (3, "returned"): False,
        (3, "arithmetic"): False,
        (3, "number"): False,
    }


def test_the_tests_of_the_changed_function_are_asked_the_modules_own_first() -> None:
    module = "registry/audit.py"
    source = campaign.sources()[module]
    found = next(m for m in mutants(module, source) if m.change.kind == "returned")
    name = by_line(source)[found.change.line]
    own, other, elsewhere = "tests/unit/registry/test_audit.py::a", "tests/x.py::b", "tests/x.py::c"
    known = Concerned(
        {own: 3.0, other: 1.0, elsewhere: 1.0},
        {module: {other: [name], own: [name, ""], elsewhere: [""]}},
        {},
    )
    assert campaign.tests_of(found, known) == [own, other]


def test_a_line_belongs_to_its_innermost_function() -> None:
    text = b"""
class A:
    limit = 3
    def f(self, x=1):
        def g():
            return 1
        return g
"""
    assert by_line(text) == {5: "A.f", 6: "A.f.g", 7: "A.f"}


def test_what_is_known_of_a_test_file_is_replaced_when_it_changes() -> None:
    before = Concerned(
        {"a.py::1": 1.0, "b.py::1": 1.0},
        {"m.py": {"a.py::1": ["f"], "b.py::1": ["f"]}},
        {"a.py": "x", "b.py": "y"},
    )
    after = before.updated(Concerned({"a.py::2": 2.0}, {"m.py": {"a.py::2": ["g"]}}, {"a.py": "z"}))
    assert after.seconds == {"b.py::1": 1.0, "a.py::2": 2.0}
    assert after.functions == {"m.py": {"b.py::1": ["f"], "a.py::2": ["g"]}}
    assert after.files == {"a.py": "z", "b.py": "y"}
    assert "tests/unit/test_mutants.py" not in after.outdated(ROOT)
    assert "tests/unit/registry/test_audit.py" in after.outdated(ROOT)


def test_a_sample_is_its_seeds_and_the_modules_that_decide_are_there() -> None:
    first = campaign.sample(5, 1, "audit")
    assert first == campaign.sample(5, 1, "audit") != campaign.sample(5, 2, "audit")
    assert [module for module in campaign.DECIDING if not (ROOT / module).is_file()] == []


@pytest.mark.proof
def test_a_worker_tells_a_mutant_that_is_noticed_and_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\n")
    code, test = tmp_path / "code.py", tmp_path / "test_code.py"
    code.write_text("LIMIT = 3\n")
    test.write_text(
        "from pathlib import Path\n"
        f"def test_it():\n    exec(Path({str(code)!r}).read_text(), globals())\n"
        "    assert LIMIT > 2\n"
    )
    assert tried(code, b"LIMIT = 4\n", [str(test)], 60.0) == SURVIVED
    assert tried(code, b"LIMIT = 2\n", [str(test)], 60.0) == KILLED
    assert code.read_text() == "LIMIT = 3\n"
