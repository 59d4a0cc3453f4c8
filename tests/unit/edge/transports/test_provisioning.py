"""Enrolment: nothing is written unless the device got its certificate."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import msgspec
import pytest
from fakes.certificates import self_signed

from edge.config import read_struct
from edge.transports import TransportError, mqtt_connection
from edge.transports.provisioning import ProvisioningClaim, enrol, main


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProvisioningClaim:
    """A claim for an endpoint where nobody listens."""
    monkeypatch.setattr(mqtt_connection, "CONNECT_SECONDS", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return ProvisioningClaim(
        fleet="plant",
        device="press-1",
        endpoint="127.0.0.1",
        port=port,
        template="t",
        token="s",
        home=str(tmp_path / "home"),
        **self_signed(tmp_path),
    )


def test_without_a_broker_nothing_is_written(claim: ProvisioningClaim) -> None:
    with pytest.raises(TransportError, match="No connection"):
        asyncio.run(enrol(claim))
    assert not Path(claim.home).exists()
    assert mqtt_connection._unstopped == []


def test_the_command_says_one_sentence_and_the_kind_of_failure(
    claim: ProvisioningClaim,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "claim.json"
    monkeypatch.setattr("sys.argv", ["mledgeops-enrol", str(file)])
    assert main() == 2
    assert "cannot be read" in capsys.readouterr().err
    file.write_bytes(msgspec.json.encode(claim))
    assert main() == 1
    assert capsys.readouterr().err.startswith("No connection")


def test_a_claim_names_files_that_exist(claim: ProvisioningClaim, tmp_path: Path) -> None:
    file = tmp_path / "claim.json"
    fields = {**msgspec.to_builtins(claim), "private_key": str(tmp_path / "none.pem")}
    file.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"none\.pem, which does not exist"):
        read_struct(file, ProvisioningClaim, "claim")
