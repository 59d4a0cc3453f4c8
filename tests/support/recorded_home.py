"""A home that version 0.4 made, as it opens on this machine.

``tests/fakes/home_0_4/home.tar.xz`` holds the home after ``run digits --devices 2 --rounds 2``,
``approve digits/1`` and ``run digits --devices 2 --rounds 4`` with version 0.4 (commit c7f0dcb):
MLflow's database as SQL, artifacts, objects, the registries, the emulator's state. Left out are
keys and certificates, the functions' code and the devices' files but for their models. ``@HOME@``
and ``@CHECKOUT@`` stand for paths.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import tarfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.paths import ROOT

ARCHIVE = ROOT / "tests" / "fakes" / "home_0_4" / "home.tar.xz"
FIRST, SECOND = "run-80W4wHc77d", "run-Tjuxjs01y1"
"""The runs: the first's model is the champion, digits/1; the second's, digits/2, is pending."""


def restore(home: Path) -> None:
    """Unpack the recorded home into an empty folder, with paths and keys of its own."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    for file in (f for f in home.rglob("*") if f.is_file()):
        data = file.read_bytes()
        here = data.replace(b"@HOME@", bytes(home)).replace(b"@CHECKOUT@", bytes(ROOT))
        if here != data:
            file.write_bytes(here)
    script = home / "mlflow.sql"
    with sqlite3.connect(home / "mlflow.db") as database:
        database.executescript(script.read_text())
    script.unlink()
    _new_keys(home / "state" / "kms.json")


def _new_keys(file: Path) -> None:
    """Give the emulator's KMS keys new key material; the recording has none."""
    state = json.loads(file.read_text())
    for key in state["payload"]["keys"]["data"].values():
        if "_symmetric_key_b64" in key:
            key["_symmetric_key_b64"] = base64.b64encode(os.urandom(32)).decode()
        else:
            made = ec.generate_private_key(ec.SECP256R1())
            private = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            public = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            key["_private_key_pem"] = base64.b64encode(private).decode()
            key["_public_key_der_b64"] = base64.b64encode(public).decode()
    file.write_text(json.dumps(state))
