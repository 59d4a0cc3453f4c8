"""Types may be parsed into by many threads, the first time as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.paths import ROOT

from edge.typed import convert, from_json, from_msgpack

FIRST_PARSED_BY_EIGHT_THREADS = """
import sys, threading
from typing import Annotated

import msgspec

from edge import typed

sys.setswitchinterval(1e-6)

SOURCE = '''
class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{4}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]

class One(msgspec.Struct, tag="one"):
    inner: "Inner"
    others: "dict[str, Inner]" = {}

class Two(msgspec.Struct, tag="two"):
    ones: "list[One]"
    one: "One | None" = None
'''
DATA = b'{"type": "two", "ones": [{"type": "one", "inner": {"digest": "00ff", "size": 1}}]}'

def parse(One, Two, start):
    start.wait()
    found = typed.from_json(DATA, type=One | Two)
    assert typed.convert(msgspec.json.decode(DATA), Two) == found

for number in range(int(sys.argv[1])):
    names = {"msgspec": msgspec, "Annotated": Annotated, "__name__": f"types{number}"}
    sys.modules[names["__name__"]] = module = type(sys)(names["__name__"])
    module.__dict__.update(names)
    exec(SOURCE, module.__dict__)
    start = threading.Barrier(8)
    given = (module.One, module.Two, start)
    threads = [threading.Thread(target=parse, args=given) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("alive")
"""


def parsed_by_threads(source: str, times: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", source, str(times)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_threads_that_parse_into_a_new_type_at_once_do_not_end_the_interpreter() -> None:
    """With msgspec 0.22's own functions this ends by SIGSEGV, in one of a few dozen times."""
    done = parsed_by_threads(FIRST_PARSED_BY_EIGHT_THREADS, 40)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


class Pair(msgspec.Struct):
    name: str
    count: int = 0


def test_what_does_not_fit_the_type_is_refused_as_msgspec_does() -> None:
    expected = Pair("a", 3)
    assert from_json(b'{"name": "a", "count": 3}', type=Pair) == expected
    assert from_msgpack(msgspec.msgpack.encode(expected), type=Pair) == expected
    assert convert({"name": "a", "count": "3"}, Pair, strict=False) == expected
    for refused in (
        lambda: from_json(b'{"name": 3}', type=Pair),
        lambda: from_msgpack(msgspec.msgpack.encode({"name": 3}), type=Pair),
        lambda: convert({"name": "a", "count": "3"}, Pair),
    ):
        with pytest.raises(msgspec.ValidationError):
            refused()


def typed_calls(file: Path) -> list[str]:
    """Where a module has msgspec parse into a type by itself."""
    text = file.read_text()
    if not any(word in text for word in ("msgspec.convert", ".decode(", "Decoder(")):
        return []
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for call in calls
        if ast.unparse(call.func) == "msgspec.convert"
        or (
            ast.unparse(call.func).startswith("msgspec.")
            and any(k.arg == "type" for k in call.keywords)
        )
        or ast.unparse(call.func).endswith(".Decoder")
    ]


@pytest.mark.parametrize("package", ["edge", "fl_runtime", "registry", "pipelines"])
def test_there_is_no_other_way_to_parse_into_a_type(package: str) -> None:
    files = [file for file in (ROOT / package).rglob("*.py") if file != ROOT / "edge" / "typed.py"]
    assert [call for file in files for call in typed_calls(file)] == []
