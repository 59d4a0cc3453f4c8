"""The locks name the files that may be installed, and so do the lists of the images."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

from pipelines.aws.hashes import LOCK, canonical, constraints, hashed, read_lock
from pipelines.aws.pins import PARTS, pins
from pipelines.aws.wheels import hashed_options

LOCKS = sorted(ROOT.glob("requirements*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda file: file.stem)
def test_each_pin_of_a_lock_has_hashes(lock: Path) -> None:
    found = read_lock(lock.read_text())
    assert found
    assert [pin for pin, hashes in found.items() if not hashes] == []
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ =]+( ; .+)?", pin) for pin in found)


def test_a_run_is_installed_without_what_only_tests_need() -> None:
    """``make run`` installs the first lock alone: it has what ``local`` and the example need."""
    names = {lock.name: {_name(pin) for pin in read_lock(lock.read_text())} for lock in LOCKS}
    run, tests = names["requirements.lock"], names["requirements-test.lock"]
    assert run & tests == set()
    app = tomllib.loads((ROOT / "notebooks/apps/wind_farm/pyproject.toml").read_text())
    needed = closure("mledgeops", ["local"]) | closure("torch")
    needed |= {_name(text) for text in app["project"]["dependencies"]}
    assert needed - run - {"mledgeops", "pip"} == set()
    assert {"pytest", "ruff", "mypy", "hypothesis"} <= tests


def closure(name: str, extras: Sequence[str] = (), found: set[str] | None = None) -> set[str]:
    """What a distribution requires here, at any depth, with itself."""
    found = set() if found is None else found
    if canonicalize_name(name) in found and not extras:
        return found
    found.add(canonicalize_name(name))
    for requirement in map(Requirement, requires(name) or []):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            closure(requirement.name, sorted(requirement.extras), found)
    return found


def _name(pin: str) -> str:
    return canonicalize_name(Requirement(pin).name)


def test_no_lock_names_a_host() -> None:
    assert [lock.name for lock in LOCKS if "://" in lock.read_text()] == []


def test_the_package_carries_the_lock_of_the_checkout() -> None:
    assert LOCK.read_bytes() == (ROOT / "requirements.lock").read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_what_a_part_installs_is_named_by_hash(part: str, tmp_path: Path) -> None:
    wanted = pins(part)
    assert all(
        line.startswith(f"{pin} \\\n    --hash=sha256:")
        for pin, line in zip(wanted, hashed(wanted), strict=True)
    )
    options = hashed_options(tmp_path / "list.txt", wanted)
    assert "--require-hashes" in options
    assert list(read_lock((tmp_path / "list.txt").read_text())) == wanted


def test_a_pin_that_the_lock_does_not_have_is_not_installed() -> None:
    with pytest.raises(KeyError):
        hashed(["msgspec==0.0.1"])


def test_constraints_are_pins_without_hashes() -> None:
    lines = constraints()
    assert len(lines) == len(read_lock(LOCK.read_text()))
    assert not [line for line in lines if "hash" in line]  # pip would want hashes of everything


def test_images_and_make_install_by_hash_and_apps_within_the_lock() -> None:
    for file in (ROOT / "pipelines" / "aws" / "images").glob("*.Dockerfile"):
        installs = re.findall(r"pip install ([^&;\n]*)", file.read_text())
        lists = [line for line in installs if "-r " in line]
        assert lists and all("--require-hashes" in line for line in lists)
        apps = [line for line in installs if "$APPS" in line]
        assert all("-c /build/constraints.txt" in line for line in apps)
    for line in (ROOT / "Makefile").read_text().splitlines():
        assert not re.search(r"\$\(PIP\).*-r ", line), line
        if "uv pip install" in line:
            assert "--require-hashes" in line and "--no-deps" in line, line


def test_locking_keeps_a_hash_that_the_index_does_not_list(tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__file__": str(ROOT / "tests" / "lock.py"), "__name__": "lock"}
    exec((ROOT / "tests" / "lock.py").read_text(), namespace)
    joined, written = namespace["joined"], namespace["written"]
    wheel = tmp_path / "torch-2.0+cpu-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    local = f"sha256:{hashlib.sha256(b'wheel').hexdigest()}"
    old, index = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
    six = 'six==1 ; platform_machine == "x86_64"'
    found = joined({"Torch==2.0": {old}, six: set()}, {"torch==2.0": {index}}, [wheel])
    assert found == {"Torch==2.0": {old, index, local}, six: set()}
    assert read_lock(written(f"# why\nTorch==2.0\n{six}\n", found)) == found
    assert canonical(six) == "six==1"
