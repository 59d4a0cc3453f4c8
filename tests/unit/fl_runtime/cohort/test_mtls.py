"""A run's certificates: one CA, two identities, stored for the proxies as long as the run lasts."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from fakes.secrets import MemorySecrets

from fl_runtime.cohort.mtls import (
    Identity,
    delete_identity,
    make_identities,
    publish_identity,
    read_identity,
    secret_name,
)


def usage(identity: Identity) -> list[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_both_sides_trust_the_same_ca_and_have_one_role_each() -> None:
    server, proxy = make_identities("127.0.0.1")
    assert server.ca == proxy.ca
    ca = x509.load_pem_x509_certificate(server.ca)
    for identity in (server, proxy):
        x509.load_pem_x509_certificate(identity.certificate).verify_directly_issued_by(ca)
    assert usage(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert usage(proxy) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_proxies_identity_is_published_replaced_and_deleted() -> None:
    secrets, name = MemorySecrets(), secret_name("run-1", 2)
    first, second = Identity(b"ca", b"certificate", b"key"), Identity(b"ca", b"other", b"key")
    publish_identity(secrets, name, first)
    publish_identity(secrets, name, second)
    assert read_identity(secrets, name) == second
    delete_identity(secrets, name)
    delete_identity(secrets, name)
    assert secrets.values == {}


@pytest.mark.parametrize(("epoch", "name"), [(1, "mledgeops/run-1/proxy-1")])
def test_each_server_of_a_run_has_a_secret_of_its_own(epoch: int, name: str) -> None:
    assert secret_name("run-1", epoch) == name
