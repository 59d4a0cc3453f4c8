"""A run's certificates: one CA, an identity for the server and one for each cohort."""

from __future__ import annotations

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
    server, proxies = make_identities("127.0.0.1", ["c0000"])
    proxy = proxies["c0000"]
    assert server.ca == proxy.ca
    ca = x509.load_pem_x509_certificate(server.ca)
    for identity in (server, proxy):
        x509.load_pem_x509_certificate(identity.certificate).verify_directly_issued_by(ca)
    assert usage(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert usage(proxy) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_proxies_identity_is_published_replaced_and_deleted() -> None:
    secrets, name = MemorySecrets(), secret_name("plant", "run-1", 2, "c0000")
    first, second = Identity(b"ca", b"certificate", b"key"), Identity(b"ca", b"other", b"key")
    publish_identity(secrets, name, first)
    publish_identity(secrets, name, second)
    assert read_identity(secrets, name) == second
    delete_identity(secrets, name)
    delete_identity(secrets, name)
    assert secrets.values == {}


def test_each_cohort_has_a_key_and_a_certificate_of_its_own() -> None:
    _, proxies = make_identities("127.0.0.1", ["c0000", "c0001"])
    first, second = proxies["c0000"], proxies["c0001"]
    assert first.key != second.key
    for cohort, identity in proxies.items():
        subject = x509.load_pem_x509_certificate(identity.certificate).subject
        assert subject.rfc4514_string() == f"CN={cohort}"


def test_each_cohort_of_each_server_of_a_run_has_a_secret_of_its_own() -> None:
    names = {
        secret_name("plant", "run-1", epoch, cohort) for epoch in (1, 2) for cohort in ("c0", "c1")
    }
    assert len(names) == 4
    assert all(name.startswith("plant/run-1/") for name in names)
