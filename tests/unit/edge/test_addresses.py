"""A device asks only addresses that its trust or configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.devices import device_config

from edge.addresses import Addresses, is_loopback
from edge.identity.trust import trusted_addresses
from edge.protocol.errors import ProtocolError

BUCKET = ("https://b.s3.eu-west-1.amazonaws.com/", "https://s3.eu-west-1.amazonaws.com/b/")


def allows(addresses: Addresses, address: str) -> bool:
    try:
        addresses.check(address)
    except ProtocolError as error:
        assert error.code == "foreign"
        assert not address or address not in str(error)
        return False
    return True


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://b.s3.eu-west-1.amazonaws.com/runs/r/x?X-Amz-Signature=1", True),
        ("https://b.s3.eu-west-1.amazonaws.com:443/runs", True),
        ("https://s3.eu-west-1.amazonaws.com/b/runs", True),
        ("https://b.s3.eu-west-1.amazonaws.com/#key=a&policy=b", True),
        ("https://s3.eu-west-1.amazonaws.com/other/runs", False),
        ("https://s3.eu-west-1.amazonaws.com/b/../other/runs", False),
        ("https://s3.eu-west-1.amazonaws.com/b/%2e%2E/other", False),
        ("https://s3.eu-west-1.amazonaws.com/b/..%2fother", False),
        ("http://b.s3.eu-west-1.amazonaws.com/runs", False),
        ("https://b.s3.eu-west-1.amazonaws.com:8443/runs", False),
        ("https://b.s3.eu-west-1.amazonaws.com@10.0.0.1/runs", False),
        ("https://b.s3.eu-west-1.amazonaws.com.example.org/", False),
        ("https://10.0.0.1/", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://127.0.0.1:8080/", False),
        ("file:///etc/passwd", False),
        ("ftp://b.s3.eu-west-1.amazonaws.com/", False),
        ("https://b.s3.eu-west-1.amazonaws.com:x/", False),
        ("https://b.s3.eu-west-1.amazonaws.com\\@10.0.0.1/", False),
        ("https://b.s3.eu-west-1.amazonaws.com/\r\nHost: x", False),
        ("https://[", False),
        ("", False),
        ("https://b.s3.eu-west-1.amazonaws.com/" + "a" * 9000, False),
    ],
)
def test_only_what_is_named_is_allowed(address: str, expected: bool) -> None:
    assert allows(Addresses(BUCKET), address) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://any.s3.eu-west-1.amazonaws.com/x", True),
        ("https://any.s3.amazonaws.com/x", True),
        ("https://s3.cn-north-1.amazonaws.com.cn/any/x", True),
        ("https://execute-api.eu-west-1.amazonaws.com/x", False),
        ("https://s3.amazonaws.com.example.org/x", False),
        ("https://s3.eu-west-1.amazonaws.com:8443/x", False),
        ("https://example.org/x", False),
        ("http://s3.eu-west-1.amazonaws.com/x", False),
    ],
)
def test_a_device_of_an_older_enrolment_may_ask_s3_only(address: str, expected: bool) -> None:
    assert allows(Addresses(), address) is expected


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:80/", "http://localhost:1/", "http://[::1]/"]
)
def test_loopback_is_allowed_where_it_is_named(address: str) -> None:
    assert allows(Addresses(BUCKET, loopback=True), address)
    assert allows(Addresses(["http://127.0.0.1/"]), address)
    assert not allows(Addresses(BUCKET), address)
    assert not allows(Addresses(loopback=True), "http://192.168.0.1/")
    assert is_loopback("127.9.9.9")
    assert not is_loopback("example.org")


def test_a_devices_addresses_are_those_of_its_trust_and_configuration(tmp_path: Path) -> None:
    remote = device_config(tmp_path, endpoint="x-ats.iot.eu-west-1.amazonaws.com")
    remote.trust_file.write_text('{"addresses": ["https://objects.example.org/"]}')
    assert allows(trusted_addresses(remote), "https://objects.example.org/x")
    assert not allows(trusted_addresses(remote), "https://b.s3.eu-west-1.amazonaws.com/x")
    assert not allows(trusted_addresses(remote), "http://127.0.0.1/x")
    assert allows(trusted_addresses(device_config(tmp_path)), "http://127.0.0.1:1/x")
