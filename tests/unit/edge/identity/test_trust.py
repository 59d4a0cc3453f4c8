"""Only signatures by a trusted key count, each purpose with its own keys."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.keys import COMMANDS, MODELS, Key, trust

from edge.config import ConfigError
from edge.identity.trust import Trust, TrustedKeys
from edge.protocol.errors import ProtocolError


def test_each_purpose_has_its_own_keys(tmp_path: Path) -> None:
    trust(tmp_path / "trust.json")
    found = Trust.of(tmp_path / "trust.json")
    found.check("commands", b"text", COMMANDS.sign(b"text"))
    found.check("models", b"text", MODELS.sign(b"text"))
    for text, signature in (
        (b"text", MODELS.sign(b"text")),
        (b"other", COMMANDS.sign(b"text")),
        (b"text", ""),
        (b"text", "not base64!"),
    ):
        with pytest.raises(ProtocolError) as refused:
            found.check("commands", text, signature)
        assert refused.value.code == "unsigned"


def test_a_key_can_be_replaced_while_both_are_trusted() -> None:
    old, new = Key(), Key()
    found = Trust(TrustedKeys(commands=[old.public, new.public]))
    for key in (old, new):
        found.check("commands", b"text", key.sign(b"text"))


def test_without_a_file_nobody_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="no key for models"):
        Trust.of(tmp_path / "none").check("models", b"text", MODELS.sign(b"text"))


def rsa_key() -> str:
    public = rsa.generate_private_key(65537, 2048).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed"),
        ('{"others": []}', "malformed"),
        ('{"commands": ["AAAA"]}', "not a public key"),
        ('{"models": ["%%"]}', "not a public key"),
        (f'{{"models": ["!{MODELS.public}"]}}', "not a public key"),
        (f'{{"models": ["{rsa_key()}"]}}', "not an elliptic curve key"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_bad_configuration(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "trust.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Trust.of(tmp_path / "trust.json")
