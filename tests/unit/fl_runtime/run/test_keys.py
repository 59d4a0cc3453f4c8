"""Keys in S3 and DynamoDB: lifecycle rules, policies and dashboards rely on them."""

from __future__ import annotations

import pytest

from edge.protocol.errors import ProtocolError
from fl_runtime.run import keys

DIGEST = "0a1b2c3d" + "0" * 56


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.run_id("token"), "run-token"),
        (keys.spec_key("r"), "runs/r/run.json"),
        (keys.cohorts_key("r"), "runs/r/cohorts.json"),
        (keys.champion_key("r"), "runs/r/champion.json"),
        (keys.round_key("r", 7), "runs/r/rounds/00007.json"),
        (keys.model_key("r", "model.tar.gz"), "runs/r/model/model.tar.gz"),
        (keys.arrays_key("r", DIGEST), f"transient/r/arrays/{DIGEST}.safetensors"),
        (keys.content_key("r", DIGEST), f"transient/r/content/{DIGEST}.json"),
        (keys.command_key("r", DIGEST), f"transient/r/commands/{DIGEST}.json"),
        (keys.update_key("r", "p", "d"), "transient/r/updates/p/d.safetensors"),
        (keys.checkpoint_key("r", "n"), "transient/r/checkpoints/n.safetensors"),
        (keys.app_key(DIGEST), f"apps/{DIGEST}.zip"),
        (keys.phase_id(3, "train", 7, DIGEST), "00003-train-0007-0a1b2c3d"),
        (keys.reply_key("r", "p", "c0001"), "r#p#c0001"),
    ],
)
def test_keys_keep_their_form(key: str, expected: str) -> None:
    assert key == expected


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "#", "a" * 64])
def test_an_illegal_name_makes_no_key(name: str) -> None:
    with pytest.raises(ProtocolError):
        keys.spec_key(name)
    with pytest.raises(ProtocolError):
        keys.update_key("r", "p", name)


def test_rounds_sort_as_they_are_numbered() -> None:
    found = [keys.round_key("r", number) for number in (1, 9, 10, 100)]
    assert found == sorted(found)
    assert all(key.startswith(keys.rounds_prefix("r")) for key in found)
