"""An app is described by its pyproject.toml, and named by the digest of its files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from fakes.devices import digits

from edge.training import app_bundle
from edge.training.app_bundle import AppError, installed_apps, load_app, site_of, unpack
from edge.training.app_files import FilePatterns, selected

APP = '[tool.flwr.app.components]\nclientapp = "app.client:app"\n'


def an_app(folder: Path, text: str = APP) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_a_description_is_read_with_its_configuration_flattened(tmp_path: Path) -> None:
    app = load_app(
        an_app(
            tmp_path / "app",
            '[project]\nname = "a"\nlicense = {text = "MIT"}\ndependencies = ["x"]\n'
            + APP
            + "[tool.flwr.app.config]\nnum-devices = 7\noptimiser = {lr = 0.1}\n"
            + '[tool.mledgeops]\nmetric = "loss"\n',
        )
    )
    assert (app.name, app.version, app.licence, app.dependencies) == ("a", "0", "MIT", ["x"])
    assert (app.client_app, app.server_app, app.devices) == ("app.client:app", "", 7)
    assert app.config == {"num-devices": 7, "optimiser.lr": 0.1}
    assert app.settings == {"metric": "loss"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid TOML"),
        ("", "names no clientapp"),
        (APP.replace(":", "."), "names no clientapp"),
        (APP + 'serverapp = "x"\n', "names its serverapp as 'x'"),
        (APP + "[project]\ndependencies = 3\n", "not a list of strings"),
        (APP + "[tool.flwr.app.config]\nx = [1]\n", "x is a list"),
    ],
)
def test_a_description_that_cannot_be_used_says_what_is_wrong(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(AppError, match=message):
        load_app(an_app(tmp_path / "app", text))


def test_what_is_no_app_says_so(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="no folder"):
        load_app(tmp_path / "none")
    with pytest.raises(AppError, match=r"no pyproject\.toml"):
        load_app(tmp_path)
    app = load_app(an_app(tmp_path / "app", APP + "[tool.flwr.app.config]\nnum-devices = true\n"))
    with pytest.raises(AppError, match="whole number of at least 1"):
        assert app.devices


def test_a_bundle_unpacks_to_the_same_app_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    bundle = digits().bundle()
    assert bundle == digits().bundle()
    unpacked = unpack(bundle, tmp_path / "app", digits().digest())
    assert unpacked.digest() == digits().digest()
    (tmp_path / "app" / "__pycache__").mkdir()
    (tmp_path / "app" / "__pycache__" / "x.py").touch()
    (tmp_path / "app" / "weights.bin").touch()
    assert unpacked.digest() == digits().digest(), "caches and data do not count"
    (tmp_path / "app" / "more.py").touch()
    assert unpacked.digest() != digits().digest()


def test_a_bundle_that_leaves_its_folder_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../escaped.py", "x" * 100)
    with pytest.raises(AppError, match="leaves its folder"):
        unpack(buffer.getvalue(), tmp_path / "app", "a" * 64)
    assert not (tmp_path / "escaped.py").exists()
    monkeypatch.setattr(app_bundle, "_UNPACKED_LIMIT", 99)
    with pytest.raises(AppError, match="unpacks to more"):
        unpack(buffer.getvalue(), tmp_path / "app", "a" * 64)
    monkeypatch.setattr(app_bundle, "BUNDLE_LIMIT", 10)
    with pytest.raises(AppError, match=r"limit is 10\..*largest file is"):
        digits().bundle()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def files_of(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


@pytest.mark.parametrize(
    "change",
    [
        {"digits/client_app.py": b"import os"},
        {"digits/more.py": b""},
        {"pyproject.toml": b""},
        {"digits/__pycache__/client_app.cpython-311.pyc": b"code"},
        {"digits/native.so": b"code"},
        {"digits/empty/": b""},
        {"digits//client_app.py": b"twice, by another name"},
    ],
)
def test_a_bundle_that_is_not_the_named_app_is_refused_before_it_is_unpacked(
    tmp_path: Path, change: dict
) -> None:
    good = files_of(digits().bundle())
    unpack(zipped(good), tmp_path / "good", digits().digest())
    with pytest.raises(AppError, match=r"not that of the app|more than an app's files"):
        unpack(zipped({**good, **change}), tmp_path / "app", digits().digest())
    assert not (tmp_path / "app").exists()


def test_a_damaged_bundle_says_so(tmp_path: Path) -> None:
    bundle = digits().bundle()
    flipped = bytearray(bundle)
    flipped[len(flipped) // 3] ^= 0xFF
    for damaged in (b"", b"PK", bundle[:-30], bundle[: len(bundle) // 2], bytes(flipped)):
        with pytest.raises(AppError, match="app bundle is"):
            unpack(damaged, tmp_path / "app", digits().digest())


def test_installed_apps_are_folders_named_by_digest(tmp_path: Path) -> None:
    assert installed_apps(tmp_path / "none") == []
    for name in ("b" * 64, "a" * 64, ".site", "." + "c" * 64, "notes"):
        (tmp_path / name).mkdir()
    assert installed_apps(tmp_path) == ["a" * 64, "b" * 64]
    assert site_of(tmp_path / ("a" * 64)) == tmp_path / ".site" / ("a" * 64)


def test_an_app_says_which_setting_holds_its_number_of_rounds(tmp_path: Path) -> None:
    def key_of(name: str, config: str, settings: str = "", server: str = "") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text(
            '[tool.flwr.app.components]\nclientapp = "a:app"\n'
            f"{server}\n[tool.flwr.app.config]\n{config}\n[tool.mledgeops]\n{settings}\n"
        )
        return load_app(folder).rounds_key

    own = 'serverapp = "b:app"'
    assert key_of("named", "num-server-rounds = 2", server=own) == "num-server-rounds"
    assert key_of("other", "rounds = 2", 'rounds-key = "rounds"', own) == "rounds"
    assert key_of("fixed", "rounds = 2", server=own) == ""
    assert key_of("none", "") == "num-server-rounds", "an app without a ServerApp gets ours"
    with pytest.raises(AppError, match="rounds-key names 'round', which is no setting"):
        key_of("wrong", "rounds = 2", 'rounds-key = "round"', own)


def names_of(folder: Path, section: str, ignored: str = "") -> list[str]:
    """The files of the bundle of an app with these rules, after it was unpacked elsewhere."""
    app = load_app(an_app(folder, f"[tool.flwr.app]\n{section}\n{APP}"))
    for name in ("app/client.py", "data/a.parquet", "data/b.bin", "x.jsonl", "final.pt", "t.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text(ignored)
    copy = unpack(app.bundle(), folder.with_name("copy"), app.digest())
    assert copy.digest() == app.digest()
    return [path.relative_to(copy.folder).as_posix() for path in copy.files()]


@pytest.mark.parametrize(
    ("section", "ignored", "left_out"),
    [
        ("", "", {"data/b.bin"}),
        ("", "*.pt\n# t.csv\n/data/\npyproject.toml", {"data/b.bin", "data/a.parquet", "final.pt"}),
        ('fab-exclude = ["data/**", "*.nothing"]', "", {"data/b.bin", "data/a.parquet"}),
        ('fab-include = ["**/*.py", "data/*.bin"]', "", {"data/a.parquet", "x.jsonl"}),
    ],
)
def test_an_app_says_which_files_it_needs_as_it_does_to_flower(
    tmp_path: Path, section: str, ignored: str, left_out: set[str]
) -> None:
    found = {*names_of(tmp_path / "app", section, ignored)}
    assert {"pyproject.toml", "app/client.py"} <= found
    assert not left_out & found
    if "include" not in section:
        assert found | left_out == {
            "pyproject.toml",
            "app/client.py",
            "data/a.parquet",
            "data/b.bin",
            "x.jsonl",
            "final.pt",
            "t.csv",
        }
    else:
        assert found == {"pyproject.toml", "app/client.py", "data/b.bin"}


def test_the_description_belongs_to_every_bundle_and_caches_to_none() -> None:
    names = ["pyproject.toml", "a.bin", "x/__pycache__/a.bin", ".venv/a.bin"]
    rules = FilePatterns(include=("*.bin",), exclude=("pyproject.toml",))
    assert selected(names, rules) == ["pyproject.toml", "a.bin"]


def test_rules_that_cannot_be_followed_say_so(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"names '\*\.none', which matches no file"):
        names_of(tmp_path / "a", 'fab-include = ["*.py", "*.none"]')
    for number, value in enumerate(("3", '"x"', '[""]', "[1]")):
        with pytest.raises(AppError, match="must be a list of patterns"):
            names_of(tmp_path / str(number), f"fab-exclude = {value}")
