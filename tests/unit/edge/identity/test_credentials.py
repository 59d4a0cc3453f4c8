"""Key and certificate are switched as a pair, and the key is the owner's only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.identity.credentials import Credentials, issued_at, key_and_request


def test_a_pair_of_credentials_is_switched_as_one(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    first = credentials.store("a", b"key a", "certificate a")
    credentials.use(first)
    second = credentials.store("b", b"key b", "certificate b")
    assert credentials.private_key.read_bytes() == b"key a"
    assert credentials.certificate.read_text() == "certificate a"
    credentials.use(second)
    assert credentials.private_key.read_bytes() == b"key b"
    assert credentials.certificate.read_text() == "certificate b"
    assert first.exists(), "until the new pair has been used"
    credentials.settle()
    assert not first.exists()
    assert stat.S_IMODE(credentials.private_key.stat().st_mode) == 0o600


def test_storing_a_pair_again_replaces_what_a_power_cut_left(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "private.pem.key").write_text("half")
    credentials.use(credentials.store("a", b"key", "certificate"))
    assert credentials.private_key.read_bytes() == b"key"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "current"]


def test_a_request_is_for_the_device_and_by_its_key() -> None:
    key, request = key_and_request("press-1")
    parsed = x509.load_pem_x509_csr(request.encode())
    assert parsed.is_signature_valid
    assert parsed.subject.rfc4514_string() == "CN=press-1"
    assert parsed.public_key() == load_pem_private_key(key, None).public_key()


def test_what_is_no_certificate_has_no_date(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("nonsense")
    with pytest.raises(ValueError, match="PEM"):
        issued_at(tmp_path / "c")
