"""A device's configuration is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes.certificates import self_signed
from fakes.devices import device_config

from edge.config import ConfigError, DeviceConfig, component_config, load_config


@pytest.mark.parametrize("text", ["{", '{"fleet": "a/b"}', "{}", "[]", "\xff"])
def test_a_malformed_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "device.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="malformed"):
        load_config(file)


def test_a_file_that_is_absent_or_names_absent_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.json")
    file = tmp_path / "device.json"
    file.write_bytes(msgspec.json.encode(device_config(tmp_path)))
    with pytest.raises(ConfigError, match="names c, which does not exist"):
        load_config(file)
    file.write_bytes(msgspec.json.encode(device_config(tmp_path, endpoint="")))
    with pytest.raises(ConfigError, match="has no endpoint"):
        load_config(file)


def test_a_good_file_is_read_and_its_folders_lie_below_home(tmp_path: Path) -> None:
    file, config = tmp_path / "device.json", device_config(tmp_path, **self_signed(tmp_path))
    file.write_bytes(msgspec.json.encode(config))
    assert load_config(file) == config
    for place in (config.apps_dir, config.cache_dir, config.trust_file, config.spool_dir):
        assert place.parent == tmp_path


def test_a_component_needs_no_certificate_of_its_own(tmp_path: Path) -> None:
    config = DeviceConfig(fleet="f", device="d", home=str(tmp_path), transport="greengrass")
    file = tmp_path / "device.json"
    file.write_bytes(msgspec.json.encode(config))
    assert load_config(file).certificate == ""


def test_a_component_is_named_by_its_nucleus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AWS_IOT_THING_NAME is not set"):
        component_config("", "f", str(tmp_path), 30.0)
    config = component_config("press-1", "f", str(tmp_path), 30.0, '{"partition-id": 1}')
    assert (config.device, config.node_config) == ("press-1", {"partition-id": 1})
    for heartbeat_seconds, node_config in ((0.0, "{}"), (30.0, "{"), (30.0, "[]")):
        with pytest.raises(ConfigError, match="malformed"):
            component_config("press-1", "f", str(tmp_path), heartbeat_seconds, node_config)
