"""Each part installs just what it needs, in the lock's versions."""

from __future__ import annotations

import pytest
from support.paths import ROOT

from pipelines.aws.pins import PARTS, pins


@pytest.mark.parametrize("part", PARTS)
def test_each_part_installs_the_locks_versions(part: str) -> None:
    from packaging.utils import canonicalize_name

    lock = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1].split()[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert "msgspec" in {pin.split("==")[0] for pin in pins(part)}
    assert len(pins(part)) > 10, (
        "an extra that setup.cfg has and the environment does not: run make"
    )
    for pin in pins(part):
        name, version = pin.split("==")
        assert lock[name] == version, f"{pin} is not what requirements.lock says"


def test_a_proxy_and_a_device_need_no_torch_and_a_proxy_no_flower() -> None:
    names = {part: {pin.split("==")[0] for pin in pins(part)} for part in PARTS}
    assert not names["proxy"] & {"torch", "flwr", "mlflow", "sagemaker"}
    assert not names["device"] & {"torch", "boto3", "mlflow"}
    assert "flwr" in names["device"]
    assert "flwr" in names["server"]
