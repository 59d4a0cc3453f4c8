"""An app's modules are imported from its own folder, and its errors are AppErrors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from edge.training.app_bundle import AppError
from edge.training.app_modules import app_on_path, forget_modules, load_component


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def an_app(folder: Path, code: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "power_app.py").write_text(code)
    return folder


def test_a_component_is_imported_with_its_own_dependencies(tmp_path: Path) -> None:
    app = an_app(tmp_path / "a", "from its_own import value\ndef predict(): return value\n")
    site = tmp_path / ".site" / "a"
    site.mkdir(parents=True)
    (site / "its_own.py").write_text("value = 7\n")
    assert load_component(app, "power_app:predict", object)() == 7
    assert sys.path[-1] == str(site), "the agent's own packages take precedence"


def test_two_threads_may_import_at_the_same_time(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    app = an_app(tmp_path / "a", "value = 7\n")
    together = threading.Barrier(2, timeout=10)

    def load(_: int) -> int:
        together.wait()
        return int(load_component(app, "power_app:value", int))

    for attempt in range(3):
        # What Python forgets on the way: folders that are gone.
        sys.path_importer_cache.update({f"/gone/{attempt}/{n}": None for n in range(5000)})
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(load, range(2))) == [7, 7]


@pytest.mark.parametrize(
    ("code", "reference", "message"),
    [
        ("import nowhere", "power_app:x", "cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "power_app:x", "cannot be imported: ZeroDivisionError"),
        ("", "power_app:x", "cannot be imported: AttributeError"),
        ("x = 3", "power_app:x", "is a int, not a str"),
    ],
)
def test_what_cannot_be_imported_says_why(
    tmp_path: Path, code: str, reference: str, message: str
) -> None:
    with pytest.raises(AppError, match=message):
        load_component(an_app(tmp_path / "a", code), reference, str)


def test_a_package_under_src_is_found_and_an_attribute_may_have_dots(tmp_path: Path) -> None:
    an_app(tmp_path / "a" / "src", "class Box:\n    value = 7\n")
    assert load_component(tmp_path / "a", "power_app:Box.value", int) == 7
    assert load_component(tmp_path / "a", "src.power_app:Box.value", int) == 7
    with app_on_path(tmp_path / "a"):
        assert str(tmp_path / "a" / "src") in sys.path
    forget_modules(tmp_path / "a", "power_app:Box.value")
    assert str(tmp_path / "a" / "src") not in sys.path


def test_another_version_is_imported_once_the_first_is_forgotten(tmp_path: Path) -> None:
    first, second = an_app(tmp_path / "a", "x = 'a'"), an_app(tmp_path / "b", "x = 'b'")
    assert load_component(first, "power_app:x", str) == "a"
    assert load_component(second, "power_app:x", str) == "a", "Python imports a name once"
    sys.path[:] = [entry for entry in sys.path if entry != str(second)]
    forget_modules(second, "power_app:x")
    assert load_component(second, "power_app:x", str) == "b"
    forget_modules(second, "power_app:x")
    assert sys.modules["power_app"].x == "b", "its own modules stay"


def test_a_folder_is_on_the_path_only_for_a_while(tmp_path: Path) -> None:
    with app_on_path(tmp_path):
        assert sys.path[0] == str(tmp_path)
        sys.path.remove(str(tmp_path))  # an app may do this itself
    assert str(tmp_path) not in sys.path
