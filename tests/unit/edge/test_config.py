"""A device configuration is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import ConfigError, DeviceConfig, load_config


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "malformed"), ('{"fleet": "a/b"}', "malformed"), ("{}", "malformed")],
)
def test_a_bad_device_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "device.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.json")


def test_a_component_needs_no_certificate_of_its_own(tmp_path: Path) -> None:
    config = DeviceConfig(fleet="f", device="d", home=str(tmp_path), transport="greengrass")
    assert config.certificate == ""
