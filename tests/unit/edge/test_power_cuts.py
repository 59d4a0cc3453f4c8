"""The power is cut before every change to a device's disk; whatever is left, the device goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.certificates import self_signed
from fakes.keys import a_manifest, document, trust
from fakes.objects import FileObjects
from support.power_cut import PowerCuts

from edge.agent.spool import Spool
from edge.config import ConfigError, load_config
from edge.files import write_atomically
from edge.identity.credentials import Credentials, is_whole, recover_credentials
from edge.identity.trust import Trust
from edge.serving.model_store import ModelRefused, ModelStore
from edge.transports import provisioning
from edge.transports.provisioning import ProvisioningClaim, enrol

OLD, NEW = b"old weights", b"new weights"


@pytest.fixture
def cuts(tmp_path: Path) -> PowerCuts:
    (tmp_path / "disk").mkdir()
    return PowerCuts(tmp_path / "disk", tmp_path / "left")


def a_pair(folder: Path) -> tuple[bytes, str]:
    folder.mkdir(parents=True)
    files = self_signed(folder)
    return Path(files["private_key"]).read_bytes(), Path(files["certificate"]).read_text()


def models(home: Path, cache: Path, weights: bytes) -> ModelStore:
    cache.mkdir(exist_ok=True)
    objects = FileObjects(cache)
    objects.data["url"] = weights
    trust(cache / "trust.json")
    return ModelStore(home / "models", objects, Trust.of(cache / "trust.json"), "f")


def install(store: ModelStore, weights: bytes, number: int) -> None:
    async def test(*_: object) -> float:
        return 0.9

    asyncio.run(store.install(document(a_manifest(weights, number)), test))


def test_a_file_that_is_not_synced_does_not_survive(
    cuts: PowerCuts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder finds what the helpers guard against."""
    file = cuts.folder / "file"
    file.write_bytes(b"old")
    for durable in (True, False):
        cuts.left.clear()
        with cuts.watching(monkeypatch):
            write_atomically(file, b"new %d" % durable, durable=durable)
        found = {(left / "file").read_bytes() for left in cuts.left}
        assert (b"" in found) is not durable


def test_a_rotation_leaves_the_old_pair_or_the_new_one(
    cuts: PowerCuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = a_pair(tmp_path / "a"), a_pair(tmp_path / "b")
    credentials = Credentials(cuts.folder / "credentials")
    credentials.use(credentials.store("old", *old))
    with cuts.watching(monkeypatch):
        credentials.use(credentials.store("new", *new))
        used = cuts.moments
        credentials.settle()
    assert cuts.moments > 15
    for left in cuts.left:
        found = Credentials(left / "credentials")
        found.recover()
        pair = (found.private_key.read_bytes(), found.certificate.read_text())
        assert pair == new or (pair == old and int(left.name[:3]) <= used), left.name


def test_a_damaged_pair_gives_way_to_the_one_before(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "home" / "credentials")
    credentials.use(credentials.store("old", *a_pair(tmp_path / "a")))
    credentials.use(credentials.store("new", *a_pair(tmp_path / "b")))
    credentials.certificate.write_bytes(b"")
    credentials.recover()
    assert credentials.certificate.resolve().parent.name == "old"
    assert is_whole(credentials.certificate.resolve().parent)


def test_an_install_leaves_the_old_model_or_the_new_one_and_lets_no_older_one_in(
    cuts: PowerCuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = models(cuts.folder, tmp_path / "cache", OLD)
    install(store, OLD, 4)
    store = models(cuts.folder, tmp_path / "cache", NEW)
    with cuts.watching(monkeypatch):
        install(store, NEW, 5)
    assert cuts.moments > 8
    for left in cuts.left:
        found = models(left, tmp_path / "cache", OLD)
        active = found.usable().manifest
        assert active is not None, left.name
        assert active.sequence in (4, 5)
        with pytest.raises(ModelRefused, match="has followed"):
            install(found, OLD, 3)
        install(models(left, tmp_path / "cache", NEW), NEW, 5)  # the job comes again
        with pytest.raises(ModelRefused, match="has followed 5"):
            install(models(left, tmp_path / "cache", OLD), OLD, 4)
    last = models(cuts.left[-3], tmp_path / "cache", NEW)
    assert last.active().sequence == 5, "what was done survives"


def test_a_kept_reply_survives(cuts: PowerCuts, monkeypatch: pytest.MonkeyPatch) -> None:
    with cuts.watching(monkeypatch):
        spool = Spool(cuts.folder / "spool")
        spool.keep("m1", b"first")
        first = cuts.moments
        spool.keep("m2", b"second")
        spool.mark_sent("m1")
    for left in cuts.left:
        found = Spool(left / "spool")
        assert found.get("m1") in (b"first", None)
        if first < int(left.name[:3]) < cuts.moments - 3 and not left.name.endswith("synced"):
            assert found.get("m1") == b"first"
    assert Spool(cuts.left[-3] / "spool").get("m2") == b"second"


def test_an_enrolment_that_was_cut_is_completed_without_a_second_token(
    cuts: PowerCuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = a_pair(tmp_path / "a")
    files = self_signed(tmp_path)
    claim = ProvisioningClaim(
        fleet="f", device="d", endpoint="e", template="t", token="s", home="", **files
    )
    registered: list[int] = []

    @contextlib.asynccontextmanager
    async def connected(_: object) -> AsyncIterator[None]:
        yield

    async def obtain(_: object, credentials: Credentials, *__: object) -> Path:
        pair = credentials.store("pair", key, certificate)
        registered.append(cuts.moments)
        return pair

    class Accepting:
        def __init__(self, endpoint: Any) -> None:
            return

        async def open(self) -> None:
            return

        close = open

    monkeypatch.setattr(provisioning, "_connected", connected)
    monkeypatch.setattr(provisioning, "obtain", obtain)
    monkeypatch.setattr(provisioning, "MqttConnection", Accepting)
    with cuts.watching(monkeypatch):
        asyncio.run(enrol(msgspec.structs.replace(claim, home=str(cuts.folder / "home"))))
    (at,) = registered

    def again(*_: object) -> Any:
        raise AssertionError("the token was used up")

    for left in cuts.left:
        home = left / "home"
        if int(left.name[:3]) > at:
            monkeypatch.setattr(provisioning, "obtain", again)
        else:
            monkeypatch.setattr(provisioning, "obtain", obtain)
        file = home / "device.json"
        if not file.exists():
            assert asyncio.run(enrol(msgspec.structs.replace(claim, home=str(home)))) == file
        config = load_config(file, recover_credentials)
        assert is_whole(Path(config.certificate).parent)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 400, b'{"manifest": null, "sequence": 0}'])
@pytest.mark.parametrize("name", ["active.json", "followed.json"])
def test_a_damaged_file_lets_no_older_manifest_in(
    tmp_path: Path, name: str, content: bytes
) -> None:
    install(models(tmp_path, tmp_path / "cache", NEW), NEW, 5)
    (tmp_path / "models" / name).write_bytes(content)
    with pytest.raises(ModelRefused):
        install(models(tmp_path, tmp_path / "cache", OLD), OLD, 4)
    (tmp_path / "models" / "active.json").write_bytes(b"")
    (tmp_path / "models" / "followed.json").write_bytes(b"")
    with pytest.raises(ModelRefused, match="an operator must look"):
        install(models(tmp_path, tmp_path / "cache", OLD), OLD, 6)


def test_a_home_of_0_4_keeps_its_number_apart_from_the_first_start_on(tmp_path: Path) -> None:
    install(models(tmp_path, tmp_path / "cache", NEW), NEW, 5)
    (tmp_path / "models" / "followed.json").unlink()
    models(tmp_path, tmp_path / "cache", OLD)
    (tmp_path / "models" / "active.json").write_bytes(b"")
    with pytest.raises(ModelRefused, match="has followed 5"):
        install(models(tmp_path, tmp_path / "cache", OLD), OLD, 5)


Damage = Callable[[Path], object]


@pytest.mark.parametrize("damage", [lambda f: f.write_bytes(bytes(f.stat().st_size)), Path.unlink])
def test_damaged_weights_are_no_model_and_are_replaced(tmp_path: Path, damage: Damage) -> None:
    """Of the right size: they were reported as the active model."""
    store = models(tmp_path, tmp_path / "cache", NEW)
    install(store, NEW, 5)
    assert store.usable().manifest is not None
    damage(tmp_path / "models" / a_manifest(NEW).digest)
    assert (store.usable().manifest, store.usable().sequence) == (None, 5)
    install(store, NEW, 5)
    assert store.usable().manifest is not None


def test_a_dangling_link_is_repaired_before_the_configuration_is_read(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "credentials")
    credentials.use(credentials.store("old", *a_pair(tmp_path / "a")))
    (tmp_path / "credentials" / "current").unlink()
    (tmp_path / "credentials" / "current").symlink_to("lost")
    file = tmp_path / "device.json"
    fields = {
        "fleet": "f",
        "device": "d",
        "endpoint": "e",
        "home": str(tmp_path),
        "certificate": str(credentials.certificate),
        "private_key": str(credentials.private_key),
        "ca": str(credentials.certificate),
    }
    file.write_bytes(msgspec.json.encode(fields))
    with pytest.raises(ConfigError):
        load_config(file)
    assert load_config(file, recover_credentials).device == "d"
